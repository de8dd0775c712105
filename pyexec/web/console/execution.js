// The page of one execution: outcome, timeline, output, displays, files, source.

import { ApiError, download, executionPath, getJson, kill } from "./api.js";
import { announce, badge, copyButton, formatBytes, formatSeconds, h, problem, timeOf } from "./dom.js";
import { DisplaysView } from "./displays.js";
import { requestOf, saveDraft, sourceOf } from "./draft.js";
import { follow } from "./events.js";
import { detailsOf, factList, outcomeOf } from "./outcome.js";
import { OutputView } from "./output.js";
import { TimelineView } from "./timeline.js";

const ENDS = new Set(["finished", "failed", "killed"]);

export const title = "Execution";

export function mount(root, id) {
  const page = new ExecutionPage(id);
  root.append(page.element);
  page.follow();
  return () => page.leave();
}

class ExecutionPage {
  #abort = new AbortController();
  #events = [];

  constructor(id) {
    this.id = id;
    this.state = h("div", { class: "state", role: "status" });
    this.errors = h("div", {});
    this.timeline = new TimelineView();
    this.output = new OutputView();
    this.output.setExecution(id);
    this.displays = new DisplaysView();
    this.files = h("section", { hidden: true });
    this.stopButton = h("button", { type: "button", class: "danger", hidden: true, onclick: () => this.#stop() }, "Stop");
    this.element = h("article", {},
      h("p", { class: "crumbs" }, h("a", { href: "#/executions" }, "Executions")),
      h("header", { class: "title" },
        h("h1", { class: "id", tabindex: "-1" }, id), copyButton("Copy the id", () => id), this.stopButton),
      this.state, this.errors, this.timeline.element, this.displays.element, this.output.element, this.files, this.#source());
  }

  leave() {
    this.#abort.abort();
    this.timeline.stop();
  }

  async follow() {
    const { signal } = this.#abort;
    try {
      const result = await follow(this.id, (name, data) => !signal.aborted && this.#on(name, data), signal);
      if (!signal.aborted) this.#end(result);
    } catch (error) {
      if (signal.aborted) return;
      this.stopButton.hidden = true;
      this.state.replaceChildren();
      this.output.element.hidden = !this.#events.length;
      this.errors.replaceChildren(problem(error));
    }
  }

  #on(name, data) {
    if (this.output.show(name, data)) return;
    if (name === "display") this.displays.add(data);
    else if (name === "disconnected") this.#showState("pending", "Connection lost; retrying");
    else if (name === "connected") this.#showLast();
    else this.#addEvent(name, data);
  }

  #addEvent(type, data) {
    const isEnd = ENDS.has(type);
    this.#events.push({ type, at: isEnd ? data.finished_at : data.at });
    this.timeline.show(this.#events);
    this.#readTimeline(this.#events.length);
    if (isEnd) return;
    this.stopButton.hidden = false;
    this.#showLast();
  }

  /** Show the state that the last event stands for. */
  #showLast() {
    const type = this.#events.at(-1)?.type;
    const status = type === "running" || type === "adopted" ? "running" : "pending";
    if (type) this.#showState(status, outcomeOf({ status }));
    else this.state.replaceChildren();
  }

  #showState(status, text) {
    this.state.replaceChildren(h("p", { class: "headline" }, badge(status), h("strong", {}, text)));
  }

  /** Read the replicas' names, which the stream of events does not have. Events of a burst are read once. */
  async #readTimeline(length) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (length !== this.#events.length || this.#abort.signal.aborted) return;
    try {
      const { events } = await getJson(`${executionPath(this.id)}/timeline`, { signal: this.#abort.signal });
      if (events.length >= length) this.timeline.show(events);
    } catch (error) {
      if (!(error instanceof ApiError)) return; // the events of the stream stay
      announce(error.message);
    }
  }

  #end(result) {
    this.stopButton.hidden = true;
    const outcome = outcomeOf(result);
    this.state.replaceChildren(
      h("p", { class: "headline" }, badge(result.status, result.exit_code), h("strong", {}, outcome)),
      ...detailsOf(result),
      h("p", { class: "muted" }, "Accepted ", timeOf(result.created_at), result.duration_ms === undefined ? "" : `, took ${formatSeconds(result.duration_ms / 1000)}`),
      factList(result));
    this.#showFiles(result);
  }

  async #stop() {
    this.stopButton.disabled = true;
    await kill(this.id).catch((error) => this.errors.replaceChildren(problem(error)));
    this.stopButton.disabled = false;
  }

  #showFiles({ files, files_skipped: skipped }) {
    if (!files && !skipped) return;
    const path = `${executionPath(this.id)}/files`;
    const get = (from, name) => download(from, name).catch((error) => this.errors.replaceChildren(problem(error)));
    const items = (files ?? []).map((file) => {
      const encoded = file.path.split("/").map(encodeURIComponent).join("/");
      const button = h("button", { type: "button", class: "quiet", "aria-label": `Download ${file.path}` }, "Download");
      button.onclick = () => get(`${path}/${encoded}`, file.path.split("/").pop());
      return h("li", {}, h("bdi", { class: "mono" }, file.path), h("span", { class: "muted" }, formatBytes(file.size)), button);
    });
    const all = files?.length > 1 && h("button", { type: "button", class: "quiet", onclick: () => get(path, `${this.id}.tar`) }, "Download all as tar");
    const missing = (skipped ?? []).map((entry) => h("li", { class: "muted" }, h("bdi", { class: "mono" }, entry.path ?? entry.pattern), ` not returned: ${entry.reason}`));
    this.files.hidden = false;
    this.files.replaceChildren(h("header", {}, h("h2", {}, "Files"), all), h("ul", { class: "files" }, items, missing));
  }

  /** Show the program, if it was run from this browser. The server does not keep every program. */
  #source() {
    const draft = sourceOf(this.id);
    if (!draft) return null;
    const { code, ...options } = requestOf(draft);
    const edit = h("button", { type: "button", class: "quiet", onclick: () => (saveDraft(draft), (location.hash = "#/run")) }, "Edit and run again");
    return h("section", {},
      h("header", {}, h("h2", {}, "Source"), h("span", { class: "muted" }, "kept in this browser"), edit),
      h("pre", { class: "plain source", dir: "ltr", tabindex: "0" }, code),
      Object.keys(options).length > 1 && h("details", {}, h("summary", {}, "Options"), h("pre", { class: "plain", dir: "ltr" }, JSON.stringify(options, null, 2))));
  }
}
