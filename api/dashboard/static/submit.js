// A new task: by a form, or as the document that it makes.

import {get, post} from "./api.js";
import {el, line, set} from "./dom.js";
import {taskHref} from "./rows.js";
import {tabsOf} from "./overview.js";

// Each field of the form: its name, its path in the document, how it is read, and what is said of it.
const fields = [
  ["Name", "name", text, "for people"], ["ID", "id", text, "one is made if empty"],
  ["Cores", "resources.cpu", amount, "such as 2 or 0.5"], ["Memory", "resources.memory", text, "such as 8GB"],
  ["GPUs", "resources.gpu", amount, "such as 1"], ["GPU memory", "resources.gpu_memory", text, "such as 20GB"],
  ["Timeout", "timeout", text, "such as 2h"], ["Tries", "max_attempts", amount, "such as 3"],
  ["Image", "image", text, "none: a plain process"], ["Labels", "labels", labels, "a=b, c=d"],
];

function text(value) { return value; }
function amount(value) { return Number.isNaN(Number(value)) ? value : Number(value); }
function labels(value) {
  return Object.fromEntries(value.split(",").map(pair => pair.trim()).filter(Boolean).map(pair => {
    const at = pair.indexOf("=");
    return at < 0 ? [pair, ""] : [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
  }));
}

export function submit({parameters}) {
  const script = el("textarea", {rows: 6, id: "shell", spellcheck: "false", placeholder: "python3 train.py --epochs 10", required: true});
  const inputs = fields.map(([, path, , hint]) => el("input", {"data-path": path, placeholder: hint, spellcheck: "false", autocomplete: "off"}));
  const form = el("div", {class: "fields"}, el("label", {class: "all"}, "Shell script", script, el("span", {class: "hint"}, "Run by /bin/sh -c. It finds MAYFLY_SCRATCH, MAYFLY_RESULT and what it was given in its environment.")),
    fields.map(([name], i) => el("label", {}, name, inputs[i])));
  const raw = el("textarea", {rows: 18, id: "document", spellcheck: "false", "aria-label": "Task document"});
  const rawField = el("label", {class: "all", hidden: true}, "Task document", raw, el("span", {class: "hint"}, "JSON; docs/tasks.md tells all fields."));
  const wrong = el("p", {class: "alert bad", role: "alert", hidden: true});
  const go = el("button", {class: "primary"}, "Submit");
  let mode = "Form";
  const modes = tabsOf(["Form", "JSON"], "Form", name => {
    if (name === "JSON" && mode !== "JSON") raw.value = JSON.stringify(made(), null, 2);
    mode = name;
    form.hidden = mode === "JSON";
    script.required = mode !== "JSON";
    rawField.hidden = mode !== "JSON";
  }, "How");

  function made() {
    const task = {shell: script.value};
    fields.forEach(([, path, read], i) => {
      const value = inputs[i].value.trim();
      if (!value) return;
      const steps = path.split(".");
      let at = task;
      for (const step of steps.slice(0, -1)) at = at[step] ??= {};
      at[steps.at(-1)] = read(value);
    });
    return task;
  }

  const node = el("form", {class: "card sheet", onsubmit: async event => {
    event.preventDefault();
    for (const input of [...inputs, script]) input.removeAttribute("aria-invalid");
    wrong.hidden = true;
    go.disabled = true;
    try {
      const {id} = await post("v1/tasks", mode === "JSON" ? raw.value : JSON.stringify(made()));
      location.hash = taskHref(id);
    } catch (error) {
      wrong.hidden = false;
      set(wrong, line(error.message)); // it begins with a field
      const at = mode === "JSON" ? raw : inputs.find(input => input.dataset.path === error.field) ?? script;
      at.setAttribute("aria-invalid", "true");
      at.focus();
    }
    go.disabled = false;
  }}, el("header", {class: "tools"}, modes), form, rawField, wrong, el("div", {class: "tools"}, go, el("span", {class: "muted"}, "Ctrl+Enter")));
  node.addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) node.requestSubmit();
  });

  // A copy of a dead letter begins as what its message was, without its id.
  async function like(id) {
    try {
      const letter = await get(`v1/dead/${encodeURIComponent(id)}`);
      const task = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(letter.body), c => c.charCodeAt(0))));
      delete task.id;
      modes.querySelector("[data-name=JSON]").click();
      raw.value = JSON.stringify(task, null, 2);
    } catch (error) { // it begins empty
      if (!error.status) return;
      wrong.hidden = false; // somebody has dealt with it
      set(wrong, line(error.message));
    }
  }

  return {
    title: "New task",
    nodes: [el("div", {class: "title"}, el("h1", {}, "New task")), node],
    shown() {
      script.focus();
      if (parameters.get("like")) like(parameters.get("like"));
    },
    back: () => { location.hash = "#/"; },
  };
}
