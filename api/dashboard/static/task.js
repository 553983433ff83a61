// One task: why it is where it is, its attempts, its time, its output, what it used.

import {get, post} from "./api.js";
import {clean, confirm, el, line, rows, set, svg, toast} from "./dom.js";
import {between, bytes, clock, kind, label, number, percent, sentence, span, stands, when} from "./format.js";
import {output} from "./output.js";
import {tile} from "./overview.js";
import {asks, lasted, opened, pill} from "./rows.js";

export function task({live, id}) {
  const path = `v1/tasks/${encodeURIComponent(id)}`;
  opened.id = id;
  const status = pill("queued"), lead = el("p", {class: "sentence"}), name = el("p", {class: "muted"});
  const facts = el("dl", {class: "facts-list"}), usage = el("dl", {class: "facts-list"}), lanes = el("div", {class: "timeline"});
  const attempts = el("tbody"), gpus = el("div", {class: "gpus"}), result = el("pre", {class: "text", tabindex: 0, "aria-label": "Result"});
  const card = (title, ...children) => el("section", {class: "card", "aria-label": title, hidden: true}, el("header", {}, el("h2", {}, title)), ...children);
  const attemptsCard = card("Attempts", el("div", {class: "scroll"}, el("table", {}, el("thead", {}, el("tr", {}, ["Attempt", "Ended as", "Code", "Ran", "Host", "Why"].map((t, i) => el("th", {scope: "col", class: i === 2 || i === 3 ? "right" : ""}, t)))), attempts)));
  const usageCard = card("Used", usage), gpuCard = card("Its GPUs", gpus), resultCard = card("Result", result), timeCard = card("Timeline", lanes);
  const factsCard = card("Task", facts);
  const log = output(id);
  const cancel = el("button", {class: "danger", id: "cancel", hidden: true, onclick: async () => {
    if (!await confirm("Cancel this task?", shown.status === "running" ? "Its worker is told to stop, and killed when it does not." : "It will not run.", "Cancel the task")) return;
    act(() => post(`${path}/cancel`));
  }}, "Cancel task…");
  const requeue = el("button", {id: "requeue", hidden: true, onclick: () => act(() => post(`v1/dead/${encodeURIComponent(id)}/requeue`))}, "Run again");
  const again = el("a", {class: "button", href: `#/submit?like=${encodeURIComponent(id)}`, hidden: true}, "Submit a copy");
  let shown = null, closed = false, busy = false, dirty = false, asked = 0;
  const leaving = new AbortController();

  async function act(what) {
    try {
      toast((await what()).said);
    } catch (error) {
      toast(error.message, true);
    }
    refresh();
  }

  async function refresh() {
    if (busy) {
      dirty = true;
      return;
    }
    busy = true;
    asked = Date.now();
    try {
      const t = await get(path, leaving.signal);
      const x = await get(`${path}/explain`, leaving.signal);
      show(t, x);
      // A task that failed for good lies among the dead letters, unless somebody has dealt with it. Whether it does is not asked before somebody wants
      // something of it: with RabbitMQ, the host would look through all of them.
      requeue.hidden = again.hidden = !["failed", "rejected"].includes(t.result?.state);
      await new Promise(resolve => setTimeout(resolve, 500));
    } catch (error) {
      if (!closed && error.status === 404) {
        set(lead, shown ? "It is not remembered any more." : sentence(line(error.message)));
        log.hidden = true;
        status.hidden = true;
        cancel.hidden = requeue.hidden = again.hidden = true;
      }
    }
    busy = false;
    if (dirty && !closed) {
      dirty = false;
      refresh();
    }
  }

  function show(t, x) {
    shown = t;
    status.hidden = false;
    status.show(stands(t));
    set(lead, sentence(line(x.sentence)));
    set(name, line(t.name));
    name.hidden = !t.name;
    cancel.hidden = !["queued", "waiting", "parked", "running", "backing_off"].includes(t.status);
    factsCard.hidden = false;
    fill(facts, [
      ["Command", t.command, "mono wide"], ["Pool", `${t.pool} (${t.band || "normal"})`], [t.started_at ? "Has" : "Wants", asks(t)],
      ["Queued", when(t.queued_at)], ["Started", when(t.started_at)], ["Ended", when(t.finished_at)], [t.finished_at ? "Ran for" : "Runs for", lasted(t)],
      ["Process", t.pid ? String(t.pid) : ""], ["Host", t.result?.host ?? ""], ["Labels", Object.entries(t.labels ?? {}).map(([k, v]) => `${k}=${v}`), "wide"],
      ["GPUs", t.result ? t.gpus ?? [] : [], "wide"],
    ]);
    const past = t.attempts ?? [];
    attemptsCard.hidden = past.length === 0;
    rows(attempts, past, a => a.attempt, attemptRow);
    timeCard.hidden = false;
    timeline(t);
    const u = t.result?.started_at ? t.result.usage : null;
    usageCard.hidden = !u;
    if (u) {
      fill(usage, [
        ["Time", span(u.wall_seconds)], ["CPU time", `${span(u.cpu_seconds)}${u.wall_seconds > 0 && t.cpu ? `, ${percent(u.cpu_seconds / u.wall_seconds / t.cpu)} of its cores` : ""}`],
        ["Memory at most", `${bytes(u.memory_peak_bytes)}${t.memory ? `, ${percent(u.memory_peak_bytes / t.memory)} of its own` : ""}`],
        ...t.result.gpus.length ? [["GPU memory at most", bytes(u.gpu_memory_peak_bytes)], ["GPUs busy", percent(u.gpu_utilization)], ["GPU energy", u.gpu_energy_joules > 36_000 ? `${number(u.gpu_energy_joules / 3_600_000)} kWh` : `${number(u.gpu_energy_joules)} J`]] : [],
      ]);
    }
    const value = t.result?.result;
    resultCard.hidden = value === undefined || value === null;
    if (!resultCard.hidden) set(result, clean(JSON.stringify(value, null, 2)));
    showGPUs();
    const latest = Math.max(t.started_at ? t.attempt : 0, ...past.map(a => a.attempt));
    log.attempts(latest);
  }

  function showGPUs() {
    const mine = shown && !shown.result ? (live.gpus?.gpus ?? []).filter(gpu => shown.gpus?.includes(gpu.uuid)) : [];
    gpuCard.hidden = mine.length === 0;
    rows(gpus, mine, gpu => gpu.uuid, tile);
  }

  // timeline draws when it waited and when it ran, a lane for each of the last attempts.
  function timeline(t) {
    const begin = Date.parse(t.queued_at), end = t.finished_at && t.result ? Date.parse(t.finished_at) : Date.now();
    const runs = (t.attempts ?? []).map(a => ({n: a.attempt, from: Date.parse(a.started_at), to: Date.parse(a.finished_at), kind: a.cause === "none" ? "good" : a.cause === "cancelled" ? "calm" : "bad", word: a.cause === "none" ? "succeeded" : label(a.cause)}));
    if (!t.result && t.started_at && !t.finished_at) runs.push({n: t.attempt, from: Date.parse(t.started_at), to: end, kind: "runs", word: "running"});
    else if (!t.result) runs.push({n: t.attempt, from: end, to: end, kind: "runs", word: label(t.status)});
    if (runs.length === 0) runs.push({n: 0, from: end, to: end, kind: "calm", word: "never ran"});
    const at = time => 100 * Math.max(0, Math.min(1, (time - begin) / Math.max(1, end - begin)));
    let waited = begin;
    const drawn = runs.map(run => {
      const from = waited;
      waited = run.to;
      const part = (kind, a, b) => b > a ? svg("rect", {class: kind, x: `${at(a)}%`, width: `${Math.max(.4, at(b) - at(a))}%`, y: 0, height: "100%"}) : null;
      const words = `${run.n ? `Attempt ${run.n}` : "Task"}: waited ${span((run.from - from) / 1000)}, ${run.from < run.to ? `ran ${span((run.to - run.from) / 1000)}, ` : ""}${run.word}`;
      return el("div", {class: "lane"}, el("span", {}, run.n ? `Attempt ${run.n}` : "Task"),
        el("div", {class: "rail", role: "img", "aria-label": words, title: words}, svg("svg", {"aria-hidden": "true"}, part("waits", from, run.from), part(run.kind, run.from, run.to))));
    }).slice(-10);
    const last = runs.at(-1);
    lanes.replaceChildren(...drawn, el("div", {class: "lane"}, el("span"), el("div", {class: "ends"}, el("span", {}, `queued ${clock(begin)}`), el("span", {}, t.result ? `${last.word} ${clock(end)}` : `${last.word}, now`))));
  }

  return {
    title: id,
    nodes: [
      el("div", {class: "title"}, el("a", {class: "button", href: "#/tasks", "aria-label": "To the list of tasks"}, "←"), el("h1", {class: "mono grow", tabindex: -1}, line(id)), status, requeue, again, cancel),
      el("div", {class: "lead"}, lead, name),
      el("div", {class: "task"}, el("div", {class: "stack"}, log, resultCard, attemptsCard), el("div", {class: "stack"}, timeCard, factsCard, usageCard, gpuCard)),
    ],
    heard(topic) {
      if (topic === "gpus") showGPUs();
      else if (!shown?.result || Date.now() - asked > 3000) refresh(); // what has ended may have been put back
    },
    shown() {
      status.hidden = true;
      refresh();
    },
    tick() {
      if (!shown || shown.result) return;
      timeline(shown);
      for (const dd of facts.querySelectorAll("[data-name='Runs for']")) set(dd, lasted(shown));
    },
    back: from => {
      if (closed) return; // it is on its way
      closed = true;
      if (from?.startsWith("#/tasks")) history.back();
      else location.hash = "#/tasks";
    },
    leave() {
      closed = true;
      leaving.abort();
      log.close();
    },
  };
}

// fill shows names and values; those without a value are left out.
function fill(list, pairs) {
  const wanted = pairs.filter(([, value]) => value?.length > 0);
  rows(list, wanted, ([name]) => name, ([name, , style]) => {
    const dd = el("dd", {class: style?.includes("mono") ? "mono" : "", "data-name": name});
    const node = el("div", {class: style?.includes("wide") ? "wide" : ""}, el("dt", {}, name), dd);
    node.update = ([, value]) => {
      if (typeof value === "string") set(dd, clean(value));
      else if (dd.textContent !== value.map(line).join("")) dd.replaceChildren(el("div", {class: "chips"}, value.map(v => el("span", {class: "chip mono"}, line(v)))));
    };
    return node;
  });
}

function attemptRow() {
  const cells = ["", "", "right", "right", "", "words"].map(c => el("td", {class: c}));
  const ended = pill("queued");
  cells[1].append(ended);
  const node = el("tr", {}, cells);
  node.update = a => {
    set(cells[0], String(a.attempt));
    ended.show(a.cause === "none" ? "succeeded" : a.cause);
    ended.className = `pill ${kind(a.cause === "none" ? "succeeded" : a.cause === "cancelled" ? "cancelled" : "failed")}`;
    set(cells[2], a.exit_code !== null ? String(a.exit_code) : line(a.signal ?? ""));
    set(cells[3], span(between(a.started_at, a.finished_at)));
    set(cells[4], line(a.host));
    set(cells[5], line(a.message ?? ""));
  };
  return node;
}
