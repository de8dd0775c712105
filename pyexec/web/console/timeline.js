// The event log of an execution as a picture: a bar for each phase on one axis, and a table.

import { formatSeconds, h, timeOf } from "./dom.js";

const PHASES = {
  submitted: "Queued", released: "Queued", claimed: "Claimed", preparing: "Preparing", running: "Running",
  adopted: "Running, adopted", kill_requested: "Completing",
};
const MARKED = new Set(["adopted", "kill_requested"]);
const ENDS = new Set(["finished", "failed", "killed"]);
const WORDS = {
  submitted: "Accepted", claimed: "Claimed", released: "Released to the queue", preparing: "Setup began",
  running: "Program started", adopted: "Adopted", kill_requested: "Kill requested", finished: "Finished",
  failed: "Failed", killed: "Killed",
};
const KNOWN = new Set(["type", "at", "replica", "seq", "execution_id", "nonce"]);
const TICKS = 5;
const LEGEND = [
  [".bar.lost", "bar lost", "its replica was lost"],
  [".mark.adopted", "mark adopted", "another replica adopted the program"],
  [".mark.kill_requested", "mark kill_requested", "kill requested"],
];

export class TimelineView {
  #events = [];
  #timer = null;

  constructor() {
    this.chart = h("div", { class: "chart", role: "img" });
    this.total = h("span", { class: "muted" });
    this.legend = h("p", { class: "legend muted" });
    this.rows = h("tbody", {});
    const head = ["Event", "Time", "After", "Replica", "Details"].map((name) => h("th", { scope: "col" }, name));
    this.element = h("section", { class: "timeline", hidden: true },
      h("header", {}, h("h2", {}, "Timeline"), this.total), this.chart, this.legend,
      h("details", {}, h("summary", {}, "All events"),
        h("div", { class: "scroll" }, h("table", {}, h("caption", { class: "visually-hidden" }, "Events of the execution"), h("thead", {}, h("tr", {}, head)), this.rows))));
  }

  /** Show events, `{type, at, replica?, …}`, oldest first. While the execution is open, its last bar grows. */
  show(events) {
    this.#events = events;
    this.element.hidden = !events.length;
    this.rows.replaceChildren(...events.map((event) => this.#row(event)));
    this.#draw();
    clearInterval(this.#timer);
    if (events.length && !ENDS.has(events.at(-1).type)) this.#timer = setInterval(() => this.#draw(), 500);
  }

  stop() {
    clearInterval(this.#timer);
  }

  #row(event) {
    const details = Object.entries(event).filter(([name, value]) => !KNOWN.has(name) && value !== null && typeof value !== "object");
    return h("tr", { class: event.type },
      h("th", { scope: "row" }, WORDS[event.type] ?? event.type),
      h("td", {}, timeOf(event.at)),
      h("td", { class: "number" }, `+${formatSeconds(secondsBetween(this.#events[0], event))}`),
      h("td", {}, event.replica ?? ""),
      h("td", {}, details.map(([name, value]) => `${name}: ${value}`).join(", ")));
  }

  #draw() {
    if (!this.#events.length) return;
    const { bars, total } = barsOf(this.#events, Date.now());
    const replicas = [...new Set(bars.map((bar) => bar.replica).filter(Boolean))];
    const last = this.#events.at(-1);
    const at = (seconds) => percent(seconds, total);
    const ticks = ticksOf(total);
    const lines = () => ticks.map((seconds) => h("span", { class: "line", style: { left: at(seconds) } }));
    const rows = bars.flatMap((bar, index) => {
      const hue = `r${Math.max(0, replicas.indexOf(bar.replica)) % 4}`;
      return [
        h("div", { class: "label" }, h("span", { class: "phase" }, bar.name), bar.replica && h("span", { class: `replica ${hue}`, title: bar.replica }, bar.replica)),
        h("div", { class: MARKED.has(bar.type) || index === bars.length - 1 ? "track marked" : "track" }, lines(),
          h("span", { class: `bar ${bar.kind} ${hue}`, style: { left: at(bar.start), width: at(bar.seconds) } }),
          MARKED.has(bar.type) && h("span", { class: `mark ${bar.type}`, style: { left: at(bar.start) } }),
          index === bars.length - 1 && ENDS.has(last.type) && h("span", { class: `mark ${last.type}`, style: { left: at(bar.start + bar.seconds) } }),
          lengthOf(bar, total))];
    });
    const labels = ticks.map((seconds) => h("span", { class: "tick", style: { left: at(seconds) } }, seconds ? formatSeconds(seconds).replace(/\.0+ /, " ") : "0"));
    this.chart.replaceChildren(...rows, h("div", { class: "label axis" }), h("div", { class: "track axis" }, labels));
    this.chart.setAttribute("aria-label", sentenceOf(bars, this.#events));
    this.total.textContent = formatSeconds(total);
    this.legend.replaceChildren(...LEGEND.filter(([selector]) => this.chart.querySelector(selector)).map(([, names, text]) => h("span", {}, h("i", { class: names }), text)));
  }
}

/** Return the duration of a bar as a label: after the bar, before a bar near the end, or inside a bar that is long. */
function lengthOf({ start, seconds }, total) {
  const text = formatSeconds(seconds);
  const end = start + seconds;
  if (end <= total * 0.85) return h("span", { class: "length", style: { left: percent(end, total) } }, text);
  if (start >= total * 0.2) return h("span", { class: "length", style: { right: percent(total - start, total) } }, text);
  return h("span", { class: "length inside", style: { right: percent(total - end, total) } }, text);
}

function percent(seconds, total) {
  return `${(100 * seconds) / total}%`;
}

/** Return the phases as bars, and the length of the axis in seconds. A replica that adopts a program begins a new bar. */
export function barsOf(events, now) {
  const bars = [];
  let replica = null;
  const last = events.at(-1);
  const isOpen = !ENDS.has(last.type);
  const end = Math.max(offsetOf(events, last), isOpen ? (now - Date.parse(events[0].at)) / 1000 : 0);
  events.forEach((event, index) => {
    const name = PHASES[event.type];
    if (!name) return;
    if (event.type === "released") replica = null;
    replica = event.replica ?? replica;
    const start = offsetOf(events, event);
    const until = index + 1 < events.length ? offsetOf(events, events[index + 1]) : end;
    const next = events[index + 1]?.type;
    const kind = event.type === "adopted" ? "running" : name.toLowerCase();
    const isLost = next === "adopted" || (next === "failed" && events[index + 1].error_type === "lost");
    bars.push({ type: event.type, name, kind: isLost ? `${kind} lost` : kind, replica, start, seconds: until - start });
  });
  return { bars, total: Math.max(end, 0.001) };
}

/** Return the seconds after the first event. Clocks of replicas may differ: no event is before the one that it follows. */
function offsetOf(events, event) {
  let latest = 0;
  for (const each of events) {
    latest = Math.max(latest, secondsBetween(events[0], each));
    if (each === event) break;
  }
  return latest;
}

function secondsBetween(first, event) {
  return (Date.parse(event.at) - Date.parse(first.at)) / 1000;
}

/** Return round values for the axis. */
function ticksOf(total) {
  const rough = total / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= rough);
  return Array.from({ length: Math.floor(total / step + 1e-9) + 1 }, (_, index) => index * step);
}

function sentenceOf(bars, events) {
  const phases = bars.map((bar) => `${bar.name} ${formatSeconds(bar.seconds)}${bar.replica ? ` on ${bar.replica}` : ""}`);
  const end = ENDS.has(events.at(-1).type) ? WORDS[events.at(-1).type] : "not ended yet";
  return `Timeline: ${phases.join(", ")}; ${end}.`;
}
