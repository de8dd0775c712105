// The event log of an execution as a picture: a bar for each phase on one axis, a mark for each event, and a table.

import { formatSeconds, h, timeOf } from "./dom.js";

const PHASES = {
  submitted: "Queued", released: "Queued", claimed: "Starting", preparing: "Setup", running: "Running",
  adopted: "Running", kill_requested: "Stopping",
};
const ENDS = new Set(["finished", "failed", "killed"]);
const WORDS = {
  submitted: "Accepted", claimed: "Claimed", released: "Released to the queue", preparing: "Setup begins",
  running: "Program starts", adopted: "Adopted", kill_requested: "Kill requested", finished: "Finished",
  failed: "Failed", killed: "Killed",
};
const KNOWN = new Set(["type", "at", "replica", "seq", "execution_id", "nonce"]);
const TICKS = 5;

export class TimelineView {
  #events = [];
  #timer = null;

  constructor() {
    this.chart = h("div", { class: "chart", role: "img" });
    this.rows = h("tbody", {});
    const head = ["Event", "Time", "After", "Replica", "Details"].map((name) => h("th", { scope: "col" }, name));
    this.element = h("section", { class: "timeline", hidden: true },
      h("h2", {}, "Timeline"), this.chart,
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
    const at = (seconds) => percent(seconds, total);
    const marks = this.#events.map((event) => {
      const title = [WORDS[event.type] ?? event.type, event.replica && `by ${event.replica}`, `+${formatSeconds(secondsBetween(this.#events[0], event))}`];
      return h("span", { class: `mark ${event.type}`, title: title.filter(Boolean).join(" "), style: { left: at(offsetOf(this.#events, event)) } });
    });
    const rows = bars.flatMap((bar) => [
      h("div", { class: "label" }, bar.name, bar.replica && h("span", { class: `replica r${replicas.indexOf(bar.replica) % 4}` }, bar.replica)),
      h("div", { class: "track" },
        h("span", { class: `bar ${bar.kind} r${Math.max(0, replicas.indexOf(bar.replica)) % 4}`, style: { left: at(bar.start), width: at(bar.seconds) } }),
        lengthOf(bar, total))]);
    const ticks = ticksOf(total).map((seconds) => h("span", { class: "tick", style: { left: at(seconds) } }, h("span", {}, seconds ? formatSeconds(seconds) : "0")));
    this.chart.replaceChildren(
      h("div", { class: "label" }, "Events"), h("div", { class: "track marks" }, marks), ...rows,
      h("div", { class: "label" }), h("div", { class: "track axis" }, ticks));
    this.chart.setAttribute("aria-label", sentenceOf(bars, this.#events));
  }
}

/** Return the duration of a bar as a label: in a wide bar, otherwise beside it. */
function lengthOf({ start, seconds }, total) {
  const text = formatSeconds(seconds);
  if (seconds > total / 4) return h("span", { class: "length inside", style: { right: percent(total - start - seconds, total) } }, text);
  if (start + seconds > total * 0.8) return h("span", { class: "length", style: { right: percent(total - start, total) } }, text);
  return h("span", { class: "length", style: { left: percent(start + seconds, total) } }, text);
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
    const kind = event.type === "adopted" ? "adopted" : name.toLowerCase();
    const isLost = next === "adopted" || (next === "failed" && events[index + 1].error_type === "lost");
    bars.push({ name: event.type === "adopted" ? "Adopted" : name, kind: isLost ? `${kind} lost` : kind, replica, start, seconds: until - start });
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
