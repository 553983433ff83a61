// The table of tasks, as the overview and the list show it.

import {el, line, roving, rows, set} from "./dom.js";
import {ago, between, bytes, cores, kind, label, since, span, stands} from "./format.js";

// opened is the task that was looked at last: who comes back to a list finds the focus on it.
export const opened = {id: ""};

export const taskHref = id => `#/tasks/${encodeURIComponent(id)}`;

// pill is a state as a coloured word.
export function pill(word) {
  const node = el("span", {class: "pill"});
  node.show = word => {
    node.className = `pill ${kind(word)}`;
    set(node, label(word));
  };
  node.show(word);
  return node;
}

// asks says in a line what a task has, or wants.
export function asks(task) {
  const parts = [];
  if (task.cpu) parts.push(cores(task.cpu));
  if (task.memory) parts.push(bytes(task.memory));
  if (task.gpus?.length) parts.push(`${task.gpus.length} GPU${task.gpus.length > 1 ? "s" : ""}`);
  return parts.join(" · ");
}

// why is what is to be known of a task at a glance: what it waits for, or what went wrong.
export function why(task) {
  if (task.result) return task.result.state === "succeeded" ? "" : task.result.message;
  return task.reason ?? "";
}

// lasted is how long a task runs or ran.
export function lasted(task) {
  if (!task.started_at) return "";
  return span(task.finished_at ? between(task.started_at, task.finished_at) : since(task.started_at));
}

const whenOf = task => task.finished_at ?? task.started_at ?? task.queued_at;

function row(compact, go) {
  const status = pill("queued");
  const id = el("a", {class: "id mono", tabindex: -1}), name = el("span", {class: "sub"});
  const command = el("span", {class: "mono"}), reason = el("span", {class: "sub why"});
  const asked = el("td", {class: "c-asks"}), time = el("td", {class: "c-time right"}), when = el("td", {class: "c-when right muted"});
  const node = el("tr", {onclick: event => {
    if (!event.target.closest("a") && !getSelection().toString()) go(id.getAttribute("href"));
  }}, el("td", {class: "c-status"}, status), el("td", {class: "c-id"}, id, name), el("td", {class: "c-what"}, command, reason), compact ? null : asked, time, compact ? null : when);
  let shown;
  node.update = task => {
    shown = task;
    node.className = stands(task);
    status.show(stands(task));
    set(id, line(task.id));
    id.setAttribute("href", taskHref(task.id));
    id.title = line(task.id);
    set(name, line([task.name, task.attempt > 1 ? `attempt ${task.attempt}` : ""].filter(Boolean).join(" · ")));
    set(command, line(task.command));
    command.title = line(task.command);
    set(reason, line(why(task)));
    reason.title = line(why(task));
    set(asked, asks(task));
    node.tick();
  };
  node.tick = () => {
    set(time, lasted(shown));
    set(when, ago(whenOf(shown)));
    when.title = whenOf(shown);
  };
  return node;
}

// taskTable makes a table; show(list) fills it.
export function taskTable(name, {compact = false, go = href => { location.hash = href; }} = {}) {
  const body = el("tbody");
  const head = (text, c) => el("th", {class: c, scope: "col"}, text);
  const table = el("table", {class: "tasks", "aria-label": name},
    el("thead", {}, el("tr", {}, head("Status", "c-status"), head("Task", "c-id"), head("Command", "c-what"), compact ? null : head("Resources", "c-asks"), head("Time", "c-time right"),
      compact ? null : head("When", "c-when right"))), body);
  const tidy = roving(table, "a.id");
  table.show = list => {
    // A task that was submitted again may be there twice: once active, once ended.
    rows(body, list, task => `${task.status === "ended" ? "ended" : "active"} ${task.id}`, () => row(compact, go));
    tidy();
  };
  table.tick = () => { for (const node of body.children) node.tick(); };
  return table;
}
