// The page: which part of it is shown, what is live, and the keys.

import {borrowed, follow, get, keep, signedIn} from "./api.js";
import {el, line, set, toast} from "./dom.js";
import {dead} from "./dead.js";
import {sentence} from "./format.js";
import {hosts} from "./hosts.js";
import {overview} from "./overview.js";
import {pill} from "./rows.js";
import {submit} from "./submit.js";
import {task} from "./task.js";
import {tasks} from "./tasks.js";

const content = document.getElementById("content");
const host = document.getElementById("host");
const link = document.getElementById("link");
const nav = document.getElementById("nav");

// live is what the stream of events told last. Pages listen to it while they are shown.
const live = {glance: null, gpus: null};
let page = null, stream = null, here = "", from = "";

function show(state) {
  link.className = `link ${state}`;
  set(link, {live: "Live", lost: "Connection lost", paused: "Paused", "": ""}[state]);
}

// listen opens the stream while somebody looks, and closes it when the tab is hidden: a manager that nobody looks at has nothing to do.
async function listen() {
  if (stream || document.hidden) return;
  stream = new AbortController();
  const {signal} = stream;
  const refusal = await follow("v1/events?topics=host,gpus", signal, heard, show);
  if (refusal && !signal.aborted) {
    stream = null;
    if (refusal.status === 401) askForToken(signedIn() ? refusal.message : "");
    else toast(refusal.message, true);
  }
}

function hush() {
  stream?.abort();
  stream = null;
}

function heard(topic, data) {
  live[topic === "host" ? "glance" : topic] = data;
  if (topic === "host") showHost(data.info);
  page?.heard?.(topic, live);
}

const hostName = el("span", {class: "name"}), hostState = pill("serving"), hostQueue = el("span", {class: "queue"});
hostState.hidden = true;
host.append(hostName, hostState, hostQueue);

function showHost(info) {
  set(hostName, line(info.host));
  hostState.show(info.state);
  hostState.hidden = info.state === "serving";
  set(hostQueue, line(`${info.version} · ${info.queue}`));
  document.title = title(page?.title);
}

const title = what => [what, live.glance?.info.host, "Mayfly"].filter(Boolean).map(line).join(" · ");

// route shows what the address names: #/, #/tasks?..., #/tasks/ID, #/hosts, #/dead, #/submit.
function route() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean);
  const parameters = new URLSearchParams(query);
  let name = parts[0] ?? "overview", id = "";
  try {
    id = decodeURIComponent(parts.slice(1).join("/"));
  } catch { /* it is no address of ours */ }
  if (page?.name === "tasks" && name === "tasks" && !id) {
    here = location.hash;
    page.asked(parameters); // the filters have changed, the rest stays
    return;
  }
  from = here;
  here = location.hash;
  const came = Boolean(page);
  page?.leave?.();
  const make = {overview, tasks: id ? task : tasks, hosts, dead, submit}[name] ?? missing;
  page = make({live, parameters, id});
  page.name = id ? "task" : name;
  content.replaceChildren(...page.nodes);
  document.title = title(page.title);
  for (const a of nav.children) {
    if (a.dataset.page === name) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  window.scrollTo(0, 0);
  if (came) (content.querySelector("h1[tabindex]") ?? content).focus({preventScroll: true});
  page.shown?.();
}

const missing = () => ({title: "Not found", nodes: [el("h1", {}, "There is no such page"), el("p", {}, el("a", {href: "#/"}, "To the overview"))]});

// askForToken asks who opens the page for a token. It never becomes part of an address.
function askForToken(said) {
  hush();
  page?.leave?.();
  page = {name: "sign-in", title: "Sign in"};
  nav.hidden = true;
  show("");
  const field = el("input", {type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-hint", "aria-invalid": said ? "true" : null});
  const form = el("form", {class: "card sheet sign-in", onsubmit: async event => {
    event.preventDefault();
    keep(field.value.trim());
    try {
      await get("v1/info");
    } catch (error) {
      keep("");
      askForToken(error.message);
      return;
    }
    start();
  }},
  el("h1", {}, "Sign in"),
  said ? el("p", {class: "alert bad", role: "alert"}, sentence(line(said))) : null,
  el("label", {}, "Token", field, el("span", {class: "hint", id: "token-hint"}, "A line of the file that MAYFLY_TOKEN_FILE names on this host. It stays in this tab.")),
  el("div", {class: "tools"}, el("button", {class: "primary"}, "Open")));
  content.replaceChildren(form);
  document.title = title("Sign in");
  field.focus();
}

async function start() {
  try {
    showHost(await get("v1/info"));
  } catch (error) {
    if (error.status === 401) {
      if (!signedIn() && await borrowed()) return start();
      return askForToken(signedIn() ? error.message : "");
    }
    show("lost");
  }
  page = null;
  nav.hidden = false;
  route();
  listen();
}

const help = [["/", "search tasks"], ["n", "new task"], ["↑ ↓ or j k", "from task to task in a list"], ["Enter", "open"], ["← →", "along a plot"], ["Esc", "out of a field, or back to the list"], ["?", "this"]];

function showHelp() {
  const dialog = el("dialog", {"aria-labelledby": "help-title", onclose: () => dialog.remove()}, el("h2", {id: "help-title"}, "Keys"),
    el("div", {class: "keys"}, help.map(([key, what]) => [el("span", {}, key.split(" or ").map((k, i) => [i ? " or " : "", el("kbd", {}, k)])), el("span", {}, what)])),
    el("form", {method: "dialog", class: "actions"}, el("button", {class: "primary"}, "Close")));
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("keydown", event => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || page?.name === "sign-in") return;
  const writes = event.target.matches("input:not([type=checkbox]), textarea, select");
  if (event.key === "Escape") {
    if (writes) event.target.blur();
    else page?.back?.(from);
    return;
  }
  if (writes) return;
  if (event.key === "/") {
    event.preventDefault();
    if (page.search) page.search();
    else location.hash = "#/tasks?search";
  } else if (event.key === "n") {
    event.preventDefault();
    location.hash = "#/submit";
  } else if (event.key === "?") {
    event.preventDefault();
    showHelp();
  }
});
document.querySelector(".skip").addEventListener("click", event => {
  event.preventDefault(); // the address is ours
  content.focus();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hush();
    show("paused");
  } else if (page?.name !== "sign-in") listen();
});
window.addEventListener("hashchange", () => { if (page?.name !== "sign-in") route(); });
setInterval(() => { if (!document.hidden) page?.tick?.(); }, 1000);
start();
