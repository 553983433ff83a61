// Two plots: what ended, as columns, and what was there, as steps. Arrow keys and the pointer show the numbers of a moment.

import {el, svg} from "./dom.js";
import {clock} from "./format.js";

const HEIGHT = 180, LEFT = 34, BOTTOM = 20, TOP = 8, RIGHT = 4;

// nice is the first round number that is not below n.
export function nice(n) {
  for (let unit = 1; ; unit *= 10) for (const f of [1, 2, 5]) if (f * unit >= n) return Math.max(f * unit, 4);
}

// plot makes a figure: draw(frame) fills it, at(share) tells the legend of a moment as [class, text] pairs.
function plot(name) {
  const legend = el("div", {class: "legend"});
  const canvas = svg("svg", {role: "img", tabindex: 0, "aria-label": name});
  const node = el("figure", {class: "plot"}, canvas, legend);
  let data, place = null;

  function draw() {
    if (!data || !node.isConnected) return;
    const width = canvas.clientWidth;
    if (width < 80) return;
    const {from, to, most} = data;
    const x = t => LEFT + (width - LEFT - RIGHT) * (t - from) / (to - from);
    const y = v => TOP + (HEIGHT - TOP - BOTTOM) * (1 - v / most);
    const parts = [];
    for (const v of [0, most / 2, most]) {
      parts.push(svg("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(v), y2: y(v)}),
        svg("text", {x: LEFT - 6, y: y(v) + 4, "text-anchor": "end"}, short(v)));
    }
    const marks = width < 420 ? 2 : 4;
    for (let i = 0; i <= marks; i++) {
      const t = from + (to - from) * i / marks;
      parts.push(svg("text", {x: x(t), y: HEIGHT - 4, "text-anchor": i === 0 ? "start" : i === marks ? "end" : "middle"}, i === marks ? "now" : clock(t, to - from < 300_000)));
    }
    parts.push(...data.draw(x, y));
    if (place !== null) {
      const t = from + (to - from) * place;
      parts.push(svg("line", {class: "cross", x1: x(t), x2: x(t), y1: TOP, y2: HEIGHT - BOTTOM}));
    }
    canvas.replaceChildren(...parts);
    tell();
  }

  function tell() {
    const words = data.tell(place === null ? null : data.from + (data.to - data.from) * place);
    legend.replaceChildren(...words.map(([kind, text]) => el("span", {class: kind}, text)));
    canvas.setAttribute("aria-label", `${name}: ${words.map(([, text]) => text).join(", ")}`);
  }

  function look(to) {
    place = to === null ? null : Math.max(0, Math.min(1, to));
    draw();
  }
  canvas.addEventListener("pointermove", event => look((event.offsetX - LEFT) / (canvas.clientWidth - LEFT - RIGHT)));
  canvas.addEventListener("pointerleave", () => look(null));
  canvas.addEventListener("blur", () => look(null));
  canvas.addEventListener("keydown", event => {
    const step = {ArrowLeft: -1 / 60, ArrowRight: 1 / 60}[event.key];
    if (step) {
      event.preventDefault();
      look((place ?? 1) + step);
    } else if (event.key === "Escape" && place !== null) {
      event.stopPropagation();
      look(null);
    }
  });
  let width = 0;
  new ResizeObserver(() => {
    if (canvas.clientWidth !== width) {
      width = canvas.clientWidth;
      draw();
    }
  }).observe(canvas);
  node.show = next => {
    data = next;
    draw();
  };
  return node;
}

const short = v => v >= 10_000 ? `${Math.round(v / 1000)}k` : String(v);
const sum = ended => Object.values(ended).reduce((a, b) => a + b, 0);
const day = (t, width) => width > 24 * 3600 * 900 ? new Date(t).toLocaleString("en-GB", {weekday: "short", hour: "2-digit", minute: "2-digit"}) : clock(t);

// throughput shows the tasks that ended, by state.
export function throughput() {
  const node = plot("Tasks ended");
  node.series = series => {
    const from = Date.parse(series.from), to = Date.parse(series.to), step = 1000 * series.step_seconds;
    const stacks = series.steps.map(s => ({at: Date.parse(s.at), ended: s.ended, good: s.ended.succeeded ?? 0, bad: (s.ended.failed ?? 0) + (s.ended.rejected ?? 0), calm: s.ended.cancelled ?? 0}));
    node.show({
      from, to, most: nice(Math.max(0, ...stacks.map(s => sum(s.ended)))),
      draw(x, y) {
        const parts = [];
        for (const s of stacks) {
          let v = 0;
          const left = x(s.at) + .5, width = Math.max(1, x(Math.min(to, s.at + step)) - left - .5);
          for (const kind of ["good", "calm", "bad"]) {
            if (s[kind] > 0) parts.push(svg("rect", {class: kind, x: left, width, y: y(v + s[kind]), height: y(v) - y(v + s[kind])}));
            v += s[kind];
          }
        }
        return parts;
      },
      tell(t) {
        const s = t === null ? null : stacks.findLast(s => s.at <= t) ?? stacks[0];
        const of = s ? [s] : stacks, total = kind => of.reduce((n, s) => n + s[kind], 0).toLocaleString("en");
        return [["good", `${total("good")} succeeded`], ["bad", `${total("bad")} failed`], ["calm", `${total("calm")} cancelled`],
          ["when", s ? `${day(s.at, to - from)}, ${series.step_seconds >= 60 ? `${series.step_seconds / 60} min` : `${series.step_seconds} s`}` : "in all"]];
      },
    });
  };
  return node;
}

// load shows how many tasks waited and ran.
export function load() {
  const node = plot("Tasks on this host");
  node.series = series => {
    const to = Date.parse(series.to);
    const samples = series.samples.map(s => ({...s, at: Date.parse(s.at)})).filter(s => s.at <= to);
    // Before the manager began there is nothing to show: the plot begins with it, or a moment ago.
    const from = Math.min(to - 20_000, Math.max(Date.parse(series.from), samples[0]?.at ?? 0));
    const at = t => samples.findLast(s => s.at <= t);
    node.show({
      from, to, most: nice(Math.max(0, ...samples.map(s => Math.max(s.waiting, s.running)))),
      draw(x, y) {
        const parts = [];
        for (const [kind, value] of [["wait", s => s.waiting], ["run", s => s.running]]) {
          let path = "", first = null;
          samples.forEach((s, i) => {
            const a = x(Math.max(from, s.at)), b = x(i + 1 < samples.length ? Math.max(from, samples[i + 1].at) : to);
            first ??= a;
            path += `${path ? "V" : `M${a.toFixed(1)} `}${y(value(s)).toFixed(1)}H${b.toFixed(1)}`;
          });
          if (path) parts.push(svg("path", {class: `${kind}-area`, d: `${path}V${y(0)}H${first.toFixed(1)}Z`}), svg("path", {class: kind, d: path}));
        }
        return parts;
      },
      tell(t) {
        const s = t === null ? samples.at(-1) : at(t);
        if (!s) return [["when", t === null ? "no samples yet" : "before this manager began"]];
        return [["accent", `${s.running.toLocaleString("en")} running`], ["warn", `${s.waiting.toLocaleString("en")} waiting`], ["when", t === null ? "now" : day(t, to - from)]];
      },
    });
  };
  return node;
}

