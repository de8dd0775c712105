// A cell of a session: its code, what it printed and displayed, and how it ended.

import { ApiError, kill } from "./api.js";
import { badge, h, problem, timeOf } from "./dom.js";
import { DisplaysView } from "./displays.js";
import { follow } from "./events.js";
import { detailsOf, outcomeOf } from "./outcome.js";
import { OutputView } from "./output.js";

const LOST = "Connection lost; retrying";

export class Cell {
  id = null; // of its execution, as soon as the server has accepted it
  #displays = new DisplaysView("h3", "visually-hidden");
  #output = new OutputView("h3", "visually-hidden");
  #head = h("p", { class: "headline" });
  #end = h("div", {});
  #hasEnded = false;
  #shown = null; // before the connection was lost: status, text

  /** `code` is null if it was run elsewhere: the server does not keep it. `edit` copies it into the editor. */
  constructor(code, edit) {
    this.number = h("h2", { class: "number" });
    this.editButton = code !== null && h("button", { type: "button", class: "quiet", onclick: () => edit(code) }, "Edit");
    this.stopButton = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.#stop() }, "Stop");
    this.link = h("a", { class: "quiet", hidden: true }, "Details");
    const source = code === null
      ? h("p", { class: "muted" }, "The code of this cell was sent from elsewhere. The server does not keep it.")
      : h("pre", { class: "plain source", dir: "ltr", tabindex: "0" }, code);
    this.#output.element.hidden = true;
    this.element = h("article", { class: "card cell-card" },
      h("header", {}, this.number, this.#head, h("span", { class: "cell-actions" }, this.stopButton, this.editButton, this.link)),
      source, this.#displays.element, this.#output.element, this.#end);
    this.show("pending", "Sending");
  }

  get isOpen() {
    return !this.#hasEnded;
  }

  setNumber(number) {
    this.number.textContent = `[${number}]`;
    this.element.setAttribute("aria-label", `Cell ${number}`);
    for (const [control, label] of [[this.editButton, "Edit"], [this.stopButton, "Stop"], [this.link, "Details of"]]) {
      if (control) control.setAttribute("aria-label", `${label} cell ${number}`);
    }
  }

  show(status, text) {
    if (text !== LOST) this.#shown = [status, text];
    this.#head.replaceChildren(badge(status), h("strong", {}, text));
  }

  accept(id) {
    this.id = id;
    this.#output.setExecution(id);
    this.stopButton.hidden = false;
    this.link.href = `#/executions/${id}`;
    this.link.hidden = false;
    this.show("pending", "Waiting");
  }

  /** Follow the execution to its end. */
  async follow(signal) {
    try {
      const result = await follow(this.id, (name, data) => !signal.aborted && this.#on(name, data), signal);
      if (!signal.aborted) this.#finish(result);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status === 404) this.forget();
      else this.fail(error);
    }
  }

  /** Show that the server has deleted the execution. */
  forget() {
    this.#close();
    this.#head.replaceChildren(h("span", { class: "muted" }, "The server no longer keeps the output of this cell."));
    this.link.hidden = true;
  }

  fail(error) {
    this.#close();
    this.#head.replaceChildren(badge("failed"), h("strong", {}, this.id ? "The cell cannot be followed." : "The cell was not accepted."));
    this.#end.replaceChildren(problem(error));
  }

  #on(name, data) {
    if (this.#output.show(name, data)) return;
    if (name === "display") this.#displays.add(data);
    else if (name === "running") this.show("running", "Running");
    else if (name === "adopted") this.show("running", "Running, adopted by another replica");
    else if (name === "kill_requested") this.show("running", "Completing: stopping the code");
    else if (name === "disconnected") this.show("pending", LOST);
    else if (name === "connected") this.show(...this.#shown);
  }

  #finish(result) {
    this.#close();
    const started = h("span", { class: "muted" }, timeOf(result.created_at));
    this.#head.replaceChildren(badge(result.status, result.exit_code), h("strong", {}, outcomeOf(result)), started);
    this.#end.replaceChildren(...detailsOf(result), result.interpreter_restarted ? h("p", { class: "notice" }, "The interpreter was restarted: its variables are lost.") : "");
  }

  #close() {
    this.#hasEnded = true;
    this.stopButton.hidden = true;
  }

  async #stop() {
    this.stopButton.disabled = true;
    await kill(this.id).catch((error) => this.#end.replaceChildren(problem(error)));
    this.stopButton.disabled = false;
  }
}
