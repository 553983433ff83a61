// Numbers, times and words for people.

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return `${n >= 100 || i === 0 || Number.isInteger(n) ? Math.round(n) : n.toPrecision(n >= 10 ? 3 : 2)} ${units[i]}`;
}

export const cores = n => `${number(n)} ${n === 1 ? "core" : "cores"}`;
export const number = n => Number(n.toFixed(2)).toLocaleString("en");
// percent never says all or nothing of what is not.
export const percent = share => share > 0 && share < .005 ? "<1%" : share < 1 && share >= .995 ? ">99%" : `${Math.round(100 * share)}%`;

// span writes seconds in one unit or two.
export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 1) return `${Math.round(1000 * s)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${pad(s % 60)} s`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ${pad(s % 3600 / 60)} m`;
  return `${Math.floor(s / 86400)} d ${pad(s % 86400 / 3600)} h`;
}

const pad = n => String(Math.floor(n)).padStart(2, "0");

export const between = (from, to) => (new Date(to) - new Date(from)) / 1000;
export const since = from => between(from, Date.now());

// ago is how long ago a time was, in one unit.
export function ago(from) {
  const s = Math.max(0, since(from));
  if (s < 5) return "just now";
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} m ago`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

export const clock = (t, seconds) => new Date(t).toLocaleTimeString("en-GB", {hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined});
export const when = t => t ? new Date(t).toLocaleString("sv-SE") : "";

// kinds are the colours of how a task stands; each has its word beside it.
const kinds = {running: "accent", stopping: "warn", settling: "accent hollow", waiting: "warn", parked: "bad hollow", queued: "hollow", backing_off: "warn hollow",
  succeeded: "good", failed: "bad", cancelled: "", rejected: "bad hollow",
  free: "good", held: "accent", checking: "warn", quarantined: "bad", divided: "",
  serving: "good", unfit: "bad", draining: "warn", stopped: "bad"};

export const kind = word => kinds[word] ?? "";
// sentence is one as it stands alone.
export const sentence = text => text && `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
export const label = word => String(word).replaceAll("_", " ");
export const stands = task => task.result ? task.result.state : task.status;
