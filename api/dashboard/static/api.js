// The API as the page uses it: requests with the token of this tab, and streams of events that come back by themselves.

const TOKEN = "mayfly-token";
let token = sessionStorage.getItem(TOKEN) ?? "";

// A tab that is opened beside others asks them for the token. Only pages of this very origin, port included, hear each other here.
const others = new BroadcastChannel("mayfly");
others.onmessage = ({data}) => {
  if (data === "token?" && token) others.postMessage({token});
  else if (data?.token && !token) keep(data.token);
};

// borrowed waits a moment for another tab's token.
export function borrowed() {
  if (token) return Promise.resolve(true);
  others.postMessage("token?");
  return new Promise(resolve => setTimeout(() => resolve(token !== ""), 150));
}

export function keep(text) {
  token = text;
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
}

export const signedIn = () => token !== "";

// Refusal is what the API says no with: one sentence, and the field at fault.
export class Refusal extends Error {
  constructor(status, sentence, field) {
    super(sentence);
    this.status = status;
    this.field = field;
  }
}

async function send(path, options = {}) {
  const headers = {...options.headers};
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, {...options, headers, credentials: "omit", redirect: "error"});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The manager does not answer.");
  }
  if (response.ok) return response;
  let said = {};
  try {
    said = await response.json();
  } catch { /* it is not from the API */ }
  throw new Refusal(response.status, said.error ?? `The manager answered ${response.status}.`, said.field);
}

export async function get(path, signal) {
  return (await send(path, {signal})).json();
}

export async function post(path, body, method = "POST") {
  return (await send(path, {method, body})).json();
}

// page gets a page of a list, with the path of the next one.
export async function page(path, signal) {
  const response = await send(path, {signal});
  const next = /^<([^>]*)>/.exec(response.headers.get("Link") ?? "");
  return {list: await response.json(), next: next ? next[1] : ""};
}

export async function blob(path) {
  return (await send(path)).blob();
}

// follow calls each with every event of a stream until the signal ends it, an "end" comes, or the API refuses it for good. state is told
// "live" and "lost". It resolves with the refusal, or nothing.
export async function follow(path, signal, each, state = () => {}) {
  let last = "", pause = 500;
  while (!signal.aborted) {
    try {
      const headers = {Accept: "text/event-stream"};
      if (last) headers["Last-Event-ID"] = last;
      const response = await send(path, {headers, signal});
      state("live");
      pause = 500;
      for await (const event of events(response.body)) {
        if (event.id) last = event.id;
        try {
          each(event.name, JSON.parse(event.data));
        } catch (error) {
          reportError(error); // the page's own fault is none of the connection
        }
        if (event.name === "end") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && error.status < 500 && error.status !== 429) return error;
    }
    if (signal.aborted) return;
    state("lost");
    await new Promise(resolve => {
      setTimeout(resolve, pause);
      signal.addEventListener("abort", resolve, {once: true});
    });
    pause = Math.min(2 * pause, 10_000);
  }
}

// events takes a stream apart.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", event = {};
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data !== undefined) yield event;
          event = {};
          continue;
        }
        const colon = line.indexOf(": ");
        if (colon > 0) event[{event: "name"}[line.slice(0, colon)] ?? line.slice(0, colon)] = line.slice(colon + 2);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
