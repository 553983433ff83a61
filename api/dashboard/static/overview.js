// The host at a glance: figures, GPUs, what is lent, what happened, what runs and what has just ended.

import {get, post} from "./api.js";
import {confirm, el, line, meter, rows, set, toast} from "./dom.js";
import {bytes, cores, label, number, percent, since, span} from "./format.js";
import {load, throughput} from "./plot.js";
import {pill, taskHref, taskTable} from "./rows.js";

const ACTIVE = "v1/tasks?brief=1&limit=8&status=running,stopping,settling,waiting,parked,queued,backing_off";
const ENDED = "v1/tasks?brief=1&limit=8&status=ended";

function figure(name, href) {
  const value = el("span", {class: "value"}, "–"), below = el("span", {class: "below"});
  const node = el(href ? "a" : "div", {class: "card figure", href}, el("span", {class: "label"}, name), value, below);
  node.show = (number, text) => {
    set(value, number);
    set(below, text);
  };
  return node;
}

export function overview({live}) {
  const running = figure("Running", "#/tasks?show=running"), waiting = figure("Waiting", "#/tasks?show=waiting"), ended = figure("Ended", "#/tasks?show=ended"), gpus = figure("GPUs free");
  const cpu = meter("Cores"), memory = meter("Memory"), disk = meter("Disk");
  const alerts = el("div", {class: "alert", role: "alert", hidden: true});
  const tiles = el("div", {class: "gpus"}), gpuNote = el("p", {class: "note"});
  const gpuCard = el("section", {class: "card", id: "gpus", hidden: true, "aria-label": "GPUs"}, el("header", {}, el("h2", {}, "GPUs"), gpuNote), tiles);
  const plots = [throughput(), load()];
  const spans = tabsOf(["15m", "1h", "6h", "24h"], "1h", span => { wanted = span; series(); });
  const active = taskTable("Running and waiting", {compact: true}), done = taskTable("Just ended", {compact: true});
  const noActive = el("p", {class: "empty"}, "Nothing runs or waits."), noDone = el("p", {class: "empty"}, "Nothing has ended yet.");
  const drain = el("button", {class: "small danger", id: "drain", onclick: async () => {
    if (!await confirm("Drain this host?", "It takes no new tasks. Those that run may finish within MAYFLY_DRAIN_TIMEOUT, the rest goes back to the queue. Then the manager ends, and with it this page.", "Drain")) return;
    try {
      await post("v1/drain");
      toast("The host drains.");
    } catch (error) {
      toast(error.message, true);
    }
  }}, "Drain…");
  let wanted = "1h", closed = false, busy = false, again = false, looked = 0, last = null;
  const leaving = new AbortController();

  function heard(topic) {
    if (topic === "gpus") showGPUs(live.gpus, live.glance);
    else {
      showGlance(live.glance);
      lists();
      if (last) {
        last.samples.push(live.glance.now);
        last.to = live.glance.now.at;
        plots[1].series(last);
      }
    }
  }

  function showGlance({info, counts}) {
    const all = Object.values(counts.ended).reduce((a, b) => a + b, 0);
    running.show((counts.running + counts.stopping).toLocaleString("en"), counts.settling ? `${counts.settling} being settled` : counts.stopping ? `${counts.stopping} being stopped` : `${number(info.cpu_used)} of ${cores(info.cpu)} lent`);
    waiting.show((counts.waiting + counts.queued).toLocaleString("en"), `${counts.waiting.toLocaleString("en")} here · ${counts.queued.toLocaleString("en")} in the queue`);
    ended.show(all.toLocaleString("en"), all ? `${percent((counts.ended.succeeded ?? 0) / all)} succeeded · ${(counts.ended.failed ?? 0).toLocaleString("en")} failed` : "none is remembered");
    gpus.hidden = info.gpus === 0;
    gpus.show(`${info.gpus_free} / ${info.gpus}`, conditions(live.gpus) || "all are free");
    bar(cpu, info.cpu_used, info.cpu, `${number(info.cpu_used)} of ${cores(info.cpu)} lent`);
    bar(memory, info.memory_used, info.memory, `${bytes(info.memory_used)} of ${bytes(info.memory)} lent`);
    bar(disk, info.disk_used, info.disk, `${bytes(info.disk_used)} of ${bytes(info.disk)} lent`);
    // GPUs in quarantine are told by themselves, with the reason.
    const sick = (live.gpus?.gpus ?? []).filter(gpu => gpu.condition === "quarantined");
    const wrong = (info.quarantined ?? []).filter(w => !(sick.length && / GPUs /.test(w)));
    const text = [info.state !== "serving" ? `This host is ${info.state}: it takes no new tasks.` : "", info.unfit ? `This host takes no tasks: ${info.unfit}.` : "", /, out of reach since /.test(info.queue) ? `${info.queue}.` : "", ...sick.map(gpu => `${gpuName(gpu)} is in quarantine: ${gpu.reason}.`), ...wrong.map(w => `In quarantine: ${w}`)].filter(Boolean).map(line);
    alerts.hidden = text.length === 0;
    if (alerts.textContent !== text.join("")) alerts.replaceChildren(text.length === 1 ? text[0] : el("ul", {}, text.map(t => el("li", {}, t))));
    drain.disabled = info.state !== "serving";
  }

  // lists gets what runs and what has ended, one request at a time, and not more often than anybody can read.
  async function lists() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      const [now, past] = await Promise.all([get(ACTIVE, leaving.signal), get(ENDED, leaving.signal)]);
      active.show(now);
      done.show(past);
      noActive.hidden = now.length > 0;
      noDone.hidden = past.length > 0;
      active.hidden = now.length === 0;
      done.hidden = past.length === 0;
      if (Date.now() - looked > 10_000) await series();
      await new Promise(resolve => setTimeout(resolve, 600));
    } catch { /* the stream says that the connection is lost */ }
    busy = false;
    if (again && !closed) {
      again = false;
      lists();
    }
  }

  async function series() {
    looked = Date.now();
    try {
      last = await get(`v1/series?span=${wanted}`, leaving.signal);
      for (const plot of plots) plot.series(last);
    } catch { /* as above */ }
  }

  function showGPUs(o, glance) {
    gpuCard.hidden = o.gpus.length === 0;
    set(gpuNote, line([o.note, o.driver ? `driver ${o.driver}` : ""].filter(Boolean).join(" · ")));
    rows(tiles, o.gpus, gpu => gpu.uuid, tile);
    if (glance) showGlance(glance);
  }

  return {
    title: "", heard,
    nodes: [
      el("h1", {class: "visually-hidden"}, "Overview"), alerts,
      el("div", {class: "figures"}, running, waiting, ended, gpus),
      gpuCard,
      el("div", {class: "split"},
        el("section", {class: "card", "aria-label": "Throughput"}, el("header", {}, el("h2", {}, "Throughput"), spans), plots[0]),
        el("section", {class: "card", "aria-label": "Load"}, el("header", {}, el("h2", {}, "Running and waiting over time")), plots[1])),
      el("div", {class: "split"},
        el("section", {class: "card", "aria-label": "Running and waiting"}, el("header", {}, el("h2", {}, "Running and waiting"), el("a", {class: "note", href: "#/tasks"}, "All tasks")), active, noActive),
        el("section", {class: "card", "aria-label": "Just ended"}, el("header", {}, el("h2", {}, "Just ended"), el("a", {class: "note", href: "#/tasks?show=ended"}, "All that ended")), done, noDone)),
      el("section", {class: "card", "aria-label": "Host"}, el("header", {}, el("h2", {}, "Lent to workers"), drain), el("div", {class: "bars"}, cpu, memory, disk)),
    ],
    shown() {
      active.hidden = done.hidden = true;
      if (live.glance) showGlance(live.glance);
      if (live.gpus) showGPUs(live.gpus, live.glance);
      lists();
      series();
    },
    tick() {
      active.tick();
      if (Date.now() - looked > 15_000) series();
    },
    leave() {
      closed = true;
      leaving.abort();
    },
  };
}

// conditions counts the GPUs that are not free, in words.
function conditions(o) {
  const counts = {};
  for (const gpu of o?.gpus ?? []) if (gpu.condition !== "free" && gpu.condition !== "divided") counts[gpu.condition] = (counts[gpu.condition] ?? 0) + 1;
  return Object.entries(counts).sort().map(([word, n]) => `${n} ${word}`).join(" · ");
}

const gpuName = gpu => gpu.parent ? `GPU ${gpu.index} · ${gpu.profile}` : `GPU ${gpu.index}`;

function bar(node, used, total, text) {
  const share = total ? used / total : 0;
  node.show(text, share, share > .97 ? "warn" : "");
}

// tabsOf makes buttons of which one is pressed.
export function tabsOf(names, first, chosen, name = "How far back") {
  const node = el("div", {class: "tabs", role: "group", "aria-label": name}, names.map(name => el("button", {type: "button", "data-name": name, "aria-pressed": String(name === first), onclick: () => {
    node.press(name);
    chosen(name);
  }}, name)));
  node.press = name => { for (const b of node.children) b.setAttribute("aria-pressed", String(b.dataset.name === name)); };
  return node;
}

// tile shows a GPU, or a MIG instance of one.
export function tile(first) {
  const condition = pill(first.condition);
  const memory = meter("Memory", "thin"), busy = meter("Busy", "thin");
  const heat = el("span"), power = el("span"), who = el("div", {class: "who"}), why = el("div", {class: "why"});
  const name = gpuName(first);
  const node = el("article", {class: "gpu", "aria-label": name}, el("div", {class: "head"}, el("b", {}, line(name)), condition), el("div", {class: "model"}),
    memory, busy, el("div", {class: "facts"}, heat, power), who, why);
  node.title = first.uuid;
  let held = "";
  node.update = gpu => {
    const state = gpu.state, used = gpu.parent ? state.instances?.[gpu.uuid] ?? 0 : state.memory_used_bytes;
    node.className = `gpu ${gpu.condition}`;
    condition.show(gpu.condition);
    set(node.querySelector(".model"), line(gpu.model));
    memory.show(`${bytes(used)} of ${bytes(gpu.memory_bytes)}`, used / gpu.memory_bytes);
    busy.hidden = Boolean(gpu.parent);
    busy.show(percent(state.utilization), state.utilization);
    set(heat, gpu.parent ? "" : `${state.temperature_celsius} °C`);
    set(power, gpu.parent ? "" : `${Math.round(state.power_watts)} of ${Math.round(state.power_limit_watts)} W`);
    const holders = Object.keys(gpu.holders ?? {}).sort();
    if (holders.join(" ") !== held || who.childNodes.length === 0) {
      held = holders.join(" ");
      who.replaceChildren(...holders.length === 0 ? [el("span", {class: "muted"}, gpu.condition === "divided" ? "lent by its instances" : "nobody has it")] :
        holders.flatMap((attempt, i) => [i ? ", " : "", el("a", {class: "mono", href: taskHref(attempt.replace(/\.\d+$/, "")), title: line(attempt)}, line(attempt))]));
    }
    why.hidden = !gpu.reason;
    set(why, gpu.reason ? line(`${label(gpu.condition)} for ${span(since(gpu.since))}: ${gpu.reason}`) : "");
  };
  return node;
}
