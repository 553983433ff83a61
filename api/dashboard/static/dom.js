// Elements are made here and nowhere else, and what is put into them is text.

import {sentence} from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

// clean replaces what would not be seen, or would change how the rest is seen: control characters, and those that turn the direction of
// writing. What comes from tasks may have been written to deceive.
export const clean = text => String(text ?? "").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, "\ufffd");

// line is clean text on one line.
export const line = text => clean(String(text ?? "").replace(/[\t\r\n]+/g, " "));

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "indeterminate") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter(c => c !== undefined && c !== null && c !== false && c !== ""));
  return node;
}

// el makes an element. Functions named on... listen, strings become text.
export const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

// set changes a text only where it differs, so that what is read or selected stays.
export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// scale sets how far a bar reaches.
export function scale(track, share, kind = "") {
  track.className = `track ${track.dataset.size ?? ""} ${kind}`.trim();
  track.firstElementChild.style.transform = `scaleX(${Math.max(0, Math.min(1, share || 0))})`;
}

// meter is a bar with words; show(words, share, kind) changes it.
export function meter(name, size) {
  const words = el("span", {class: "num"});
  const track = el("div", {class: "track", "data-size": size, role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100}, el("i"));
  const node = el("div", {class: "bar"}, el("div", {class: "words"}, el("span", {}, name), words), track);
  node.show = (text, share, kind) => {
    set(words, text);
    track.setAttribute("aria-valuenow", Math.round(100 * Math.max(0, Math.min(1, share || 0))));
    track.setAttribute("aria-valuetext", text);
    scale(track, share, kind);
  };
  return node;
}

// rows keeps a parent's children in step with a list: make(item) makes one, which has a function update(item). Those that stay are not
// touched but where they changed.
export function rows(parent, list, key, make) {
  const old = new Map([...parent.children].map(node => [node.dataset.key, node]));
  let at = parent.firstElementChild;
  for (const item of list) {
    const name = String(key(item));
    let node = old.get(name);
    if (node) old.delete(name);
    else {
      node = make(item);
      node.dataset.key = name;
    }
    node.update(item);
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  for (const node of old.values()) node.remove();
}

// toast says something at the edge of the page.
export function toast(text, bad = false) {
  const node = el("div", {class: bad ? "toast bad" : "toast"}, sentence(line(text)));
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), bad ? 10_000 : 5_000);
}

// confirm asks in a dialog, and resolves with whether it was allowed.
export function confirm(title, text, label, danger = true) {
  return new Promise(resolve => {
    const dialog = el("dialog", {"aria-labelledby": "confirm-title", onclose: () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    }},
    el("h2", {id: "confirm-title"}, title), el("p", {class: "muted"}, text),
    el("form", {method: "dialog", class: "actions"},
      el("button", {value: "no", autofocus: true}, "Cancel"),
      el("button", {value: "yes", class: danger ? "primary danger" : "primary"}, label)));
    document.body.append(dialog);
    dialog.showModal();
  });
}

// roving makes the links of a list one stop of the tab key: arrows, j and k, Home and End move among them.
export function roving(parent, selector) {
  const all = () => [...parent.querySelectorAll(selector)];
  const one = node => all().forEach(n => n.tabIndex = n === node ? 0 : -1);
  parent.addEventListener("focusin", event => {
    const node = event.target.closest(selector);
    if (node) one(node);
  });
  parent.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || !event.target.matches?.(selector)) return;
    const list = all(), at = list.indexOf(event.target);
    const to = {ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1, Home: 0, End: list.length - 1}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    list[Math.max(0, Math.min(list.length - 1, to))]?.focus();
  });
  // tidy sees to it that there is one stop after the list has changed.
  return function tidy() {
    const list = all();
    if (list.length > 0 && !list.some(n => n.tabIndex === 0)) list[0].tabIndex = 0;
  };
}
