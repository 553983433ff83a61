// What a task writes, as it comes. It is text: what a terminal would obey is taken out.

import {blob, follow} from "./api.js";
import {clean, el, line, toast} from "./dom.js";
import {bytes, sentence} from "./format.js";

// MOST is how many characters are kept on the page; the rest is to be had as a file.
const MOST = 1 << 20;
// LINE is how long a line may be before it is taken as one that does not end.
const LINE = 1 << 14;

const escapes = /\u001b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\|$)|[ -/]*[0-~]?)|\u009b[0-?]*[ -/]*[@-~]?/g;

// plain is a line as it would stand on a terminal in the end: without colours, and after a carriage return from the beginning.
export function plain(text) {
  text = text.replace(escapes, "").replace(/\r+$/, "");
  return clean(text.slice(text.lastIndexOf("\r") + 1));
}

// screen shows one stream.
function screen(name) {
  const last = document.createTextNode("");
  const node = el("div", {class: "output", tabindex: 0, role: "region", "aria-label": name}, last);
  let rest = "", kept = 0, follows = true, asked = false;
  node.total = 0;

  function toEnd() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      if (follows) node.scrollTop = node.scrollHeight;
    });
  }
  node.add = (offset, text, size) => {
    if (node.total === 0 && offset > 0) node.prepend(el("div", {class: "gap"}, `${bytes(offset)} before this are not shown; download all to see them.`));
    node.total = offset + size;
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    if (rest.length > LINE) {
      lines.push(rest);
      rest = "";
    }
    if (lines.length > 0) {
      const piece = lines.map(plain).join("\n") + "\n";
      node.insertBefore(document.createTextNode(piece), last);
      kept += piece.length;
    }
    last.data = plain(rest);
    while (kept > MOST && node.firstChild !== last) {
      kept -= node.firstChild.textContent.length;
      node.firstChild.remove();
    }
    toEnd();
  };
  node.clear = () => {
    node.replaceChildren(last);
    last.data = rest = "";
    kept = node.total = 0;
  };
  node.follow = on => {
    follows = on;
    if (on) toEnd();
  };
  node.atEnd = () => node.scrollHeight - node.scrollTop - node.clientHeight < 40;
  return node;
}

// output is the part of a task's page that shows what an attempt writes. open(attempt) begins with one.
export function output(id) {
  const screens = {stdout: screen("Standard output"), stderr: screen("Standard error")};
  const state = el("span", {class: "muted num grow", role: "status"});
  const follows = el("input", {type: "checkbox", checked: true, onchange: () => { for (const s of Object.values(screens)) s.follow(follows.checked); }});
  const wraps = el("input", {type: "checkbox", onchange: () => { for (const s of Object.values(screens)) s.classList.toggle("wrap", wraps.checked); }});
  const which = el("select", {"aria-label": "Attempt", onchange: () => open(Number(which.value))});
  const whichField = el("label", {class: "check", hidden: true}, "Attempt", which);
  const counts = {};
  const tabs = el("div", {class: "tabs", role: "group", "aria-label": "Which stream"}, Object.keys(screens).map(name => el("button", {type: "button", "data-name": name, onclick: () => {
    picked = true;
    choose(name);
  }}, name, counts[name] = el("span", {class: "count"}))));
  const save = el("button", {class: "small", type: "button", onclick: async () => {
    try {
      const address = URL.createObjectURL(await blob(`v1/tasks/${encodeURIComponent(id)}/logs?stream=${chosen}&attempt=${attempt}&offset=0`));
      el("a", {href: address, download: `${id}.${attempt}.${chosen}.txt`}).click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    } catch (error) {
      toast(error.message, true);
    }
  }}, "Download all");
  const node = el("section", {class: "card", "aria-label": "Output"}, el("header", {}, el("h2", {}, "Output"), whichField, tabs), screens.stdout, screens.stderr,
    el("div", {class: "tools pager"}, state, el("label", {class: "check"}, follows, "Follow"), el("label", {class: "check"}, wraps, "Wrap lines"), save));
  let chosen = "stdout", picked = false, attempt = 0, reading = null;

  for (const s of Object.values(screens)) {
    // Who scrolls up wants to read; who comes back to the end wants to follow.
    s.addEventListener("scroll", () => {
      if (s.hidden || follows.checked === s.atEnd() || !s.wheeled) return;
      follows.checked = s.atEnd();
      for (const each of Object.values(screens)) each.follow(follows.checked);
    });
    for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"]) s.addEventListener(kind, () => { s.wheeled = true; }, {passive: true});
  }

  function choose(name) {
    chosen = name;
    for (const b of tabs.children) b.setAttribute("aria-pressed", String(b.dataset.name === name));
    for (const [each, s] of Object.entries(screens)) s.hidden = each !== name;
    screens[name].follow(follows.checked);
  }

  // open shows an attempt from now on.
  async function open(number) {
    reading?.abort();
    reading = new AbortController();
    const {signal} = reading;
    attempt = number;
    for (const [name, s] of Object.entries(screens)) {
      s.clear();
      counts[name].textContent = "";
    }
    state.textContent = "";
    const refusal = await follow(`v1/tasks/${encodeURIComponent(id)}/logs?follow=1&attempt=${number}`, signal, (event, data) => {
      if (event === "end") {
        if (!picked && !screens.stdout.total && screens.stderr.total) choose("stderr"); // nobody wants to see nothing
        state.textContent = screens.stdout.total + screens.stderr.total ? "All that it wrote" : "It wrote nothing";
        return;
      }
      const s = screens[data.stream];
      s.add(data.offset, data.text, new TextEncoder().encode(data.text).length);
      counts[data.stream].textContent = bytes(s.total);
      state.textContent = "Live";
    }, word => { if (word === "lost") state.textContent = "Connection lost"; });
    if (refusal && !signal.aborted) state.textContent = sentence(line(refusal.message));
  }

  // attempts offers so many to choose among, and goes on with the latest where the latest was shown.
  node.attempts = latest => {
    if (latest === 0) state.textContent = "It has not begun";
    const had = which.options.length;
    whichField.hidden = latest < 2;
    for (let n = had + 1; n <= latest; n++) which.append(el("option", {value: n}, String(n)));
    if (latest > had) {
      which.value = latest;
      open(latest);
    }
  };
  node.close = () => reading?.abort();
  choose("stdout");
  return node;
}
