// The list of tasks: fifty at a time, however many there are.

import {page as getPage} from "./api.js";
import {el, line, set} from "./dom.js";
import {label, sentence} from "./format.js";
import {opened, taskHref, taskTable} from "./rows.js";

const LIMIT = 50;
const shows = {
  all: ["All", ""],
  running: ["Running", "running,stopping,settling"],
  waiting: ["Waiting", "waiting,parked,queued,backing_off"],
  ended: ["Ended", "ended"],
};
const states = ["succeeded", "failed", "cancelled", "rejected"];
const causes = ["exit", "signal", "timeout", "deadline", "oom", "gpu_oom", "gpu_fault", "disk_full", "start_error", "host_lost", "cancelled", "rejected"];

// left is how the list was when it was left, for who comes back to it.
let left = null;

export function tasks({live, parameters}) {
  const table = taskTable("Tasks"), empty = el("p", {class: "empty"}), note = el("span", {class: "muted num grow", role: "status"});
  const text = el("input", {type: "search", id: "search", placeholder: "ID, name, command or label", maxlength: 200});
  const state = choice("Any end", states), cause = choice("Any cause", causes);
  const tag = el("input", {placeholder: "name or name=value", maxlength: 200});
  const pool = choice("Any pool", []);
  const poolField = el("label", {hidden: true}, "Pool", pool);
  const newer = el("button", {type: "button", onclick: () => { turn(behind.pop() ?? ""); }}, "← Newer"), older = el("button", {type: "button", onclick: () => {
    behind.push(path);
    turn(next);
  }}, "Older →");
  const more = el("button", {type: "button", class: "toggle", "aria-expanded": "false", onclick: () => more.setAttribute("aria-expanded", String(filters.classList.toggle("open")))}, "Filters");
  let filters;
  const counts = {};
  const tabs = el("div", {class: "tabs", role: "group", "aria-label": "Which tasks"}, Object.entries(shows).map(([name, [title]]) => el("button", {type: "button", "data-name": name, onclick: () => ask({show: name, ...(name === "ended" || name === "all" ? {} : {state: "", cause: ""})})},
    title, counts[name] = el("span", {class: "count"}))));
  let query, first = "", path = "", next = "", behind = [], fetching = null, again = false, closed = false, typing = 0;

  function choice(any, list) {
    return el("select", {}, el("option", {value: ""}, any), list.map(word => el("option", {value: word}, label(word))));
  }

  // ask changes the address, which shows again.
  function ask(changes) {
    const to = new URLSearchParams(query);
    for (const [name, value] of Object.entries(changes)) {
      if (value) to.set(name, value);
      else to.delete(name);
    }
    if (to.get("show") === "all") to.delete("show");
    const hash = `#/tasks${to.size ? `?${to}` : ""}`;
    if (location.hash === hash) return;
    history.replaceState(null, "", hash);
    asked(to);
  }

  // asked shows what the address asks for.
  function asked(to) {
    query = to;
    const show = shows[to.get("show")] ? to.get("show") : "all";
    for (const b of tabs.children) b.setAttribute("aria-pressed", String(b.dataset.name === show));
    for (const [field, name] of [[text, "text"], [state, "state"], [cause, "cause"], [tag, "label"], [pool, "pool"]]) {
      if (document.activeElement !== field) field.value = to.get(name) ?? "";
    }
    const wanted = new URLSearchParams({brief: 1, limit: LIMIT});
    if (shows[show][1]) wanted.set("status", shows[show][1]);
    for (const name of ["text", "state", "cause", "label", "pool"]) if (to.get(name)) wanted.set(name, to.get(name));
    first = `v1/tasks?${wanted}`;
    behind = [];
    let at = first;
    if (left?.first === first) ({path: at, behind} = left);
    left = null;
    turn(at);
    if (to.has("search")) { // it is meant once
      to.delete("search");
      history.replaceState(null, "", `#/tasks${to.size ? `?${to}` : ""}`);
      search();
    }
  }

  function turn(to) {
    path = to || first;
    fetching?.abort();
    fetching = null;
    refresh();
    if (to !== first) window.scrollTo(0, 0);
  }

  // refresh gets the page that is shown, anew. What is searched for may be far back: a page without any leads to the next one.
  async function refresh() {
    if (fetching) {
      again = true;
      return;
    }
    const mine = fetching = new AbortController();
    try {
      let list = [], at = path, more = "", looked = 0;
      do {
        if (looked++ > 0) set(note, "Searching further back…");
        ({list, next: more} = await getPage(at, mine.signal));
        at = more;
      } while (list.length === 0 && more && !mine.signal.aborted);
      if (mine !== fetching) return;
      next = more;
      table.show(list);
      table.hidden = list.length === 0;
      empty.hidden = list.length > 0;
      if (opened.id) {
        if (document.activeElement === document.body || document.activeElement?.id === "content") table.querySelector(`a.id[href=${CSS.escape(taskHref(opened.id))}]`)?.focus();
        opened.id = "";
      }
      set(empty, query.size ? "No task matches." : "There are no tasks.");
      set(note, list.length ? `${list.length} shown${behind.length ? `, page ${behind.length + 1}` : ""}` : "");
      newer.disabled = behind.length === 0;
      older.disabled = !next;
      await new Promise(resolve => setTimeout(resolve, 600));
    } catch (error) {
      if (mine !== fetching) return;
      if (error.name !== "AbortError") {
        table.hidden = true;
        empty.hidden = false;
        set(empty, sentence(line(error.message)));
      }
    }
    if (mine !== fetching) return;
    fetching = null;
    if (again && !closed) {
      again = false;
      refresh();
    }
  }

  function heard(topic) {
    if (topic !== "host" || !live.glance) return;
    const c = live.glance.counts, ended = Object.values(c.ended).reduce((a, b) => a + b, 0);
    const running = c.running + c.stopping + c.settling, waiting = c.waiting + c.queued;
    for (const [name, n] of Object.entries({all: running + waiting + ended, running, waiting, ended})) set(counts[name], n.toLocaleString("en"));
    const pools = live.glance.info.pools;
    poolField.hidden = pools.length < 2;
    if (pool.options.length !== pools.length + 1) {
      pool.replaceChildren(el("option", {value: ""}, "Any pool"), ...pools.map(p => el("option", {value: p}, p)));
      pool.value = query.get("pool") ?? "";
    }
    refresh();
  }

  function search() {
    text.focus();
    text.select();
  }
  text.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => ask({text: text.value.trim()}), 250);
  });
  text.addEventListener("keydown", event => {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      if (event.key === "Enter") ask({text: text.value.trim()});
      table.querySelector("a.id")?.focus();
    }
  });
  for (const [field, name] of [[state, "state"], [cause, "cause"]]) field.addEventListener("change", () => ask({[name]: field.value, ...(field.value && query.get("show") ? {show: "ended"} : {})}));
  tag.addEventListener("change", () => ask({label: tag.value.trim()}));
  pool.addEventListener("change", () => ask({pool: pool.value}));
  newer.disabled = older.disabled = true;

  return {
    title: "Tasks", heard, asked, search,
    nodes: [
      el("div", {class: "title"}, el("h1", {class: "grow"}, "Tasks"), tabs),
      el("section", {class: "card", "aria-label": "Tasks"},
        filters = el("div", {class: "filters", role: "search"}, el("label", {}, "Search", text), more, el("label", {}, "Ended as", state), el("label", {}, "Cause", cause), el("label", {}, "Label", tag), poolField),
        table, empty,
        el("div", {class: "pager"}, note, newer, older)),
    ],
    shown() {
      table.hidden = true;
      empty.hidden = true;
      asked(parameters);
      heard("host");
    },
    tick: () => table.tick(),
    back: () => ask({show: "", text: "", state: "", cause: "", label: "", pool: ""}),
    leave() {
      closed = true;
      left = {first, path, behind};
      clearTimeout(typing);
      fetching?.abort();
      fetching = null;
    },
  };
}
