// Dead letters: what was refused, and what failed for good.

import {get, post} from "./api.js";
import {clean, confirm, el, line, roving, rows, set, toast} from "./dom.js";
import {ago, kind, label, sentence} from "./format.js";
import {pill, taskHref} from "./rows.js";

const LIMIT = 200;

export function dead() {
  const body = el("tbody"), empty = el("p", {class: "empty", hidden: true}), note = el("span", {class: "muted num", role: "status"});
  const table = el("table", {class: "dead", "aria-label": "Dead letters"}, el("thead", {}, el("tr", {}, ["Task", "Cause", "Why", "Buried", ""].map(t => el("th", {scope: "col"}, t || el("span", {class: "visually-hidden"}, "What to do"))))), body);
  const tidy = roving(table, "a.key");
  const leaving = new AbortController();

  async function refresh() {
    try {
      const list = await get(`v1/dead?limit=${LIMIT + 1}`, leaving.signal);
      rows(body, list.slice(0, LIMIT), d => d.key, row);
      tidy();
      table.hidden = list.length === 0;
      empty.hidden = list.length > 0;
      set(empty, "There are none.");
      set(note, list.length > LIMIT ? `The oldest ${LIMIT}` : list.length ? `${list.length}` : "");
    } catch (error) {
      if (error.name === "AbortError") return;
      empty.hidden = false;
      set(empty, sentence(line(error.message)));
    }
  }

  async function act(key, what, done) {
    try {
      await what();
      toast(`${done}: ${key}`);
    } catch (error) {
      toast(error.message, true);
    }
    const rowsNow = [...body.children], at = rowsNow.findIndex(r => r.dataset.key === key);
    await refresh();
    (body.children[Math.min(at, body.children.length - 1)]?.querySelector("a.key") ?? document.getElementById("content")).focus();
  }

  function row(d) {
    const path = `v1/dead/${encodeURIComponent(d.key)}`;
    const cause = pill("failed"), when = el("td", {class: "muted"}), why = el("td", {class: "reason"});
    const node = el("tr", {}, el("td", {}, el("a", {class: "key mono", href: taskHref(d.id), tabindex: -1}, line(d.key))), el("td", {}, cause), why, when,
      el("td", {class: "right"}, el("div", {class: "tools"},
        el("button", {class: "small", "aria-label": `Show the message of ${line(d.key)}`, onclick: () => showBody(path, d)}, "Message"),
        el("button", {class: "small requeue", "aria-label": `Requeue ${line(d.key)}`, onclick: () => act(d.key, () => post(`${path}/requeue`), "Put back into its pool")}, "Requeue"),
        el("button", {class: "small danger", "aria-label": `Drop ${line(d.key)}`, onclick: async () => {
          if (await confirm("Drop this message for good?", `Nothing will be left of ${line(d.key)} but what the history remembers.`, "Drop")) act(d.key, () => post(path, undefined, "DELETE"), "Dropped");
        }}, "Drop"))));
    node.update = d => {
      cause.show(label(d.cause || "unknown"));
      cause.className = `pill ${kind("failed")}`;
      set(why, line(d.reason));
      set(when, ago(d.buried_at));
      when.title = d.buried_at;
    };
    return node;
  }

  async function showBody(path, d) {
    try {
      const letter = await get(path);
      const bytes = Uint8Array.from(atob(letter.body ?? ""), c => c.charCodeAt(0));
      const dialog = el("dialog", {"aria-labelledby": "body-title", onclose: () => dialog.remove()}, el("h2", {id: "body-title"}, line(d.key)),
        el("pre", {class: "text", tabindex: 0}, clean(new TextDecoder().decode(bytes.slice(0, 1 << 20)))), el("form", {method: "dialog", class: "actions"}, el("button", {class: "primary"}, "Close")));
      document.body.append(dialog);
      dialog.showModal();
    } catch (error) {
      toast(error.message, true);
    }
  }

  return {
    title: "Dead letters",
    nodes: [el("div", {class: "title"}, el("h1", {class: "grow"}, "Dead letters"), note),
      el("section", {class: "card", "aria-label": "Dead letters"}, el("div", {class: "scroll"}, table), empty)],
    shown() {
      table.hidden = true;
      refresh();
    },
    back: () => { location.hash = "#/"; },
    leave: () => leaving.abort(),
  };
}
