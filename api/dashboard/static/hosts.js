// The hosts of the fleet: what each lends and runs, and which take no tasks. To ask goes to every host by way of the broker, so it is done while somebody looks.

import {get} from "./api.js";
import {el, line, meter, rows, set} from "./dom.js";
import {bytes, number, sentence} from "./format.js";
import {pill} from "./rows.js";

const PAUSE = 10_000;
// MANY is from how many hosts on there is something to search, and SHOWN how many are drawn at most.
const MANY = 12, SHOWN = 300;

export function hosts({live}) {
  const body = el("tbody"), empty = el("p", {class: "empty"}, "The hosts are being asked."), note = el("span", {class: "muted num", role: "status"});
  const table = el("table", {class: "hosts", "aria-label": "Hosts", hidden: true}, el("thead", {}, el("tr", {}, ["Host", "Running", "Waiting", "Cores", "Memory", "GPUs", "Pools"].map(t => el("th", {scope: "col", class: t === "Running" || t === "Waiting" ? "right" : null}, t)))), body);
  const find = el("input", {type: "search", id: "find", placeholder: "Find a host, a pool, a reason", "aria-label": "Find hosts", hidden: true, oninput: () => show()});
  const leaving = new AbortController();
  let list = [], asked = 0, busy = false, known = false;

  async function refresh() {
    if (busy) return;
    busy = true;
    asked = Date.now();
    try {
      list = await get("v1/hosts", leaving.signal);
      show();
    } catch (error) {
      if (error.name !== "AbortError") say(sentence(line(error.message)));
    }
    busy = false;
  }

  // say shows a sentence below what is known.
  function say(text) {
    empty.hidden = text === "";
    set(empty, text);
  }

  function show() {
    known = Boolean(live.glance);
    find.hidden = list.length < MANY;
    const wanted = find.hidden ? [] : find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = list.filter(h => wanted.every(word => text(h).includes(word))).sort((a, b) => Boolean(trouble(b)) - Boolean(trouble(a)) || (a.host < b.host ? -1 : 1));
    rows(body, found.slice(0, SHOWN), h => h.host, row);
    table.hidden = found.length === 0;
    const out = list.filter(h => trouble(h)).length;
    set(note, [`${list.length} ${list.length === 1 ? "host" : "hosts"}`, out ? `${out} in trouble` : "", found.length > SHOWN ? `the first ${SHOWN} are shown` : ""].filter(Boolean).join(" · "));
    if (found.length === 0) say("No host is like that.");
    else say(list.length === 1 ? "No other host of these pools answers." : "");
  }

  function row() {
    const name = el("b", {}), state = pill("serving"), here = el("span", {class: "muted"}), why = el("div", {class: "why"});
    const running = el("td", {class: "right num"}), waiting = el("td", {class: "right num"}), gpus = el("td", {class: "num"}), pools = el("td", {class: "muted"});
    const cpu = meter("Cores", "thin"), memory = meter("Memory", "thin");
    const node = el("tr", {}, el("th", {scope: "row"}, el("div", {class: "name"}, name, state, here), why), running, waiting, el("td", {}, cpu), el("td", {}, memory), gpus, pools);
    node.update = h => {
      set(name, line(h.host));
      name.title = line(`${h.host} · ${h.version} · ${h.queue}`);
      state.show(h.unfit ? "unfit" : h.state);
      state.hidden = !h.unfit && h.state === "serving";
      set(here, h.host === live.glance?.info.host ? "this host" : "");
      why.hidden = !trouble(h);
      set(why, line(trouble(h)));
      set(running, h.running.toLocaleString("en"));
      set(waiting, h.waiting.toLocaleString("en"));
      cpu.show(`${number(h.cpu_used)} of ${number(h.cpu)}`, h.cpu ? h.cpu_used / h.cpu : 0);
      memory.show(`${bytes(h.memory_used)} of ${bytes(h.memory)}`, h.memory ? h.memory_used / h.memory : 0);
      set(gpus, h.gpus ? `${h.gpus - h.gpus_free} of ${h.gpus}` : "–");
      set(pools, line(h.pools.join(", ")));
    };
    return node;
  }

  return {
    title: "Hosts",
    nodes: [el("div", {class: "title"}, el("h1", {class: "grow", tabindex: -1}, "Hosts"), note, find),
      el("section", {class: "card", "aria-label": "Hosts"}, el("div", {class: "scroll"}, table), empty)],
    shown: refresh,
    search() { if (!find.hidden) find.focus(); },
    heard() {
      if (!known && live.glance && list.length) show(); // which one is this
    },
    tick() { if (Date.now() - asked > PAUSE) refresh(); },
    back: () => { location.hash = "#/"; },
    leave: () => leaving.abort(),
  };
}

// trouble says why a host takes no tasks, or has less to lend than it could; nothing where all is well.
const trouble = h => [h.unfit ? `Takes no tasks: ${h.unfit}` : "", h.state === "draining" ? "Takes no new tasks: it drains" : "", ...(h.quarantined ?? []).map(w => `In quarantine: ${w}`)].filter(Boolean).join("; ");

const text = h => [h.host, h.state, ...h.pools, trouble(h)].join(" ").toLowerCase();
