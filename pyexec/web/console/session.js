// The page of one session: its state, and cells that run one after another.

import { getJson, kill, request } from "./api.js";
import { badge, h, plural, problem, timeOf } from "./dom.js";
import { DisplaysView } from "./displays.js";
import { Editor } from "./editor.js";
import { bytesOf, run } from "./events.js";
import { detailsOf, outcomeOf } from "./outcome.js";
import { OutputView } from "./output.js";
import { poll } from "./poll.js";

const SECONDS = 5;
const OLDER_MAX = 100;

export const title = "Session";

export function mount(root, id) {
  const page = new SessionPage(id);
  root.append(page.element);
  const stop = poll(SECONDS, (signal) => page.refresh(signal));
  page.listCells();
  return () => (stop(), page.abort.abort());
}

class SessionPage {
  abort = new AbortController();
  #count = 0;
  #known = new Set(); // executions that the page shows

  constructor(id) {
    this.path = `/api/v1/sessions/${encodeURIComponent(id)}`;
    this.state = h("div", { class: "state", role: "status" });
    this.errors = h("div", {});
    this.cells = h("div", { class: "cells" });
    this.older = h("ul", { class: "files" });
    this.editor = new Editor("Cell", "", () => {});
    const action = (label, send) => {
      const button = h("button", { type: "button" }, label);
      button.onclick = () => send().then(() => this.refresh(this.abort.signal)).catch((error) => this.#fail(error));
      return button;
    };
    const interrupt = action("Interrupt", () => request(`${this.path}/interrupt`, { method: "POST" }));
    const restart = action("Restart", () => request(`${this.path}/restart`, { method: "POST" }));
    const close = action("Close", () => request(this.path, { method: "DELETE" }));
    close.className = "danger";
    this.form = h("form", { class: "program cell", "aria-label": "Cell" }, this.editor.element,
      h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Run ", h("kbd", {}, "Ctrl ↵")), interrupt, restart, close));
    this.form.addEventListener("submit", (event) => (event.preventDefault(), this.#run()));
    this.form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      event.stopPropagation();
      this.#run();
    }, true);
    this.element = h("article", {},
      h("p", { class: "crumbs" }, h("a", { href: "#/sessions" }, "Sessions")),
      h("header", { class: "title" }, h("h1", { class: "id", tabindex: "-1" }, id)),
      this.state, h("section", {}, this.older), this.cells, this.form, this.errors);
    this.id = id;
  }

  async refresh(signal) {
    try {
      const session = await getJson(this.path, { signal });
      const isOpen = session.status === "open";
      const facts = [
        session.replica && `on ${session.replica}`, session.docker_image,
        session.interpreter_restarts && `interpreter restarted ${plural(session.interpreter_restarts, "time")}`,
        session.cells?.waiting && `${plural(session.cells.waiting, "cell")} waiting`, session.close_reason,
      ].filter(Boolean);
      this.state.replaceChildren(
        h("p", { class: "headline" }, badge(session.status), h("span", {}, facts.join(" · "))),
        h("p", { class: "muted" }, "Opened ", timeOf(session.created_at), isOpen && session.expires_at ? h("span", {}, ", closes when unused at ", timeOf(session.expires_at)) : ""));
      this.form.hidden = !isOpen;
      return isOpen;
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
      return false;
    }
  }

  /** List the cells that were run before the page was opened. */
  async listCells() {
    try {
      const { executions } = await getJson(`/api/v1/executions?limit=${OLDER_MAX}`, { signal: this.abort.signal });
      const cells = executions.filter((summary) => summary.session_id === this.id && !this.#known.has(summary.execution_id));
      this.older.replaceChildren(...cells.reverse().map((summary) => h("li", {},
        badge(summary.status, summary.exit_code), timeOf(summary.created_at), h("bdi", {}, outcomeOf(summary)),
        h("a", { class: "id", href: `#/executions/${summary.execution_id}` }, `…${summary.execution_id.slice(-8)}`))));
    } catch (error) {
      if (!this.abort.signal.aborted) this.#fail(error);
    }
  }

  #fail(error) {
    this.errors.replaceChildren(problem(error));
  }

  /** Send the cell. The server runs cells in the order in which it accepts them. */
  async #run() {
    const code = this.editor.value;
    if (!code.trim()) return;
    this.editor.value = "";
    this.errors.replaceChildren();
    const number = (this.#count += 1);
    const [output, displays] = [new OutputView(`Output of cell ${number}`), new DisplaysView()];
    const head = h("p", { class: "headline" }, badge("pending"));
    let id = null;
    const stop = h("button", { type: "button", class: "quiet", onclick: () => id && kill(id).catch((error) => this.#fail(error)) }, "Stop");
    const end = h("div", {});
    this.cells.append(h("section", { class: "card", "aria-label": `Cell ${number}` }, h("pre", { class: "plain", dir: "ltr" }, code), head, displays.element, output.element, end));
    this.form.scrollIntoView({ block: "nearest" });
    const listener = (name, data) => {
      if (data.execution_id && !id) {
        id = data.execution_id;
        this.#known.add(id);
        output.setExecution(id);
      }
      if (name === "output") output.push(data.stream, bytesOf(data.data));
      else if (name === "display") displays.add(data);
      else if (name === "submitted" || name === "running") {
        head.replaceChildren(badge(name === "running" ? "running" : "pending"), stop, h("a", { class: "id", href: `#/executions/${id}` }, "Open the execution"));
      }
    };
    try {
      const result = await run(`${this.path}/eval`, { code }, listener, this.abort.signal);
      stop.remove();
      head.firstChild.replaceWith(badge(result.status, result.exit_code), h("strong", {}, outcomeOf(result)));
      end.replaceChildren(...detailsOf(result), result.interpreter_restarted ? h("p", { class: "notice" }, "The interpreter was restarted: its variables are lost.") : "");
    } catch (error) {
      if (!this.abort.signal.aborted) end.replaceChildren(problem(error));
    }
    await this.refresh(this.abort.signal);
  }
}
