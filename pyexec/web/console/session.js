// The page of one session: its state, its cells, and an editor for the next cell.

import { getJson, request } from "./api.js";
import { badge, confirmDialog, copyButton, h, plural, problem, timeOf } from "./dom.js";
import { Cell } from "./cell.js";
import { Autosave, emptyDraft, loadCell, rememberSource, saveCell, sourceOf, sourcesOf } from "./draft.js";
import { Editor, onRun } from "./editor.js";
import { submitCell } from "./events.js";
import { closeReason } from "./outcome.js";
import { Poll } from "./poll.js";

const CELLS_MAX = 100; // listed when the page is opened
const PAUSE_SECONDS = 1; // between two requests, however busy the server is

export const title = "Session";

export function mount(root, id) {
  const page = new SessionPage(id);
  root.append(page.element);
  page.start();
  return () => page.leave();
}

class SessionPage {
  #abort = new AbortController();
  #cells = new Map(); // execution id -> Cell
  #submitting = Promise.resolve(); // cells run in the order in which they were sent
  #isFollowing = false;
  #poll = null;
  #autosave = new Autosave(() => saveCell(this.id, this.editor.value));

  constructor(id) {
    this.id = id;
    this.path = `/api/v1/sessions/${encodeURIComponent(id)}`;
    this.state = h("div", { class: "state", role: "status" });
    this.errors = h("div", {});
    this.cells = h("div", { class: "cells" });
    this.editor = new Editor("Cell", loadCell(id), () => this.#autosave.soon());
    const action = (label, className, act) => h("button", { type: "button", class: className, onclick: (event) => this.#act(event.target, act) }, label);
    this.interruptButton = action("Interrupt", "", () => request(`${this.path}/interrupt`, { method: "POST" }));
    const restart = action("Restart", "", async () =>
      (await confirmDialog("Restart the interpreter?", "Its variables are lost. The files stay.", "Restart")) && request(`${this.path}/restart`, { method: "POST" }));
    const close = action("Close", "danger", async () =>
      (await confirmDialog("Close the session?", "Its variables and files are deleted.", "Close the session")) && request(this.path, { method: "DELETE" }));
    this.actions = h("div", { class: "actions-end", hidden: true }, this.interruptButton, restart, close);
    this.runButton = h("button", { type: "submit", class: "primary", "aria-keyshortcuts": "Shift+Enter Control+Enter" }, "Run ", h("kbd", {}, "Shift ↵"));
    this.form = h("form", { class: "program cell", "aria-label": "Cell", hidden: true }, this.editor.element, h("div", { class: "actions" }, this.runButton));
    onRun(this.form, ["shiftKey", "ctrlKey", "metaKey"], () => this.#run());
    this.element = h("article", {},
      h("p", { class: "crumbs" }, h("a", { href: "#/sessions" }, "Sessions")),
      h("header", { class: "title" }, h("h1", { class: "id", tabindex: "-1" }, id), copyButton("Copy the id", () => id), this.actions),
      this.state, this.cells, this.errors, this.form);
  }

  start() {
    for (const { id } of sourcesOf(this.id)) this.#show(id, this.#newCell(id));
    this.#poll = new Poll((signal, list) => this.#read(signal, list), (error) => this.#fail(error));
  }

  leave() {
    this.#autosave.stop();
    this.#poll.stop();
    this.#abort.abort();
  }

  async #read(signal, list) {
    await this.#listCells(list);
    return (await this.#refresh(signal)) ? PAUSE_SECONDS : null;
  }

  /** Read the state, and return true if the session is open. */
  async #refresh(signal) {
    const session = await getJson(this.path, { signal });
    const isOpen = session.status === "open";
    const facts = [
      session.replica && `on ${session.replica}`, session.docker_image,
      session.interpreter_restarts && `interpreter restarted ${plural(session.interpreter_restarts, "time")}`,
      waitingText(session.cells?.waiting),
    ].filter(Boolean);
    const state = h("div", {},
      h("p", { class: "headline" }, badge(session.status), isOpen ? "" : h("strong", {}, closeReason(session.close_reason)), h("span", {}, facts.join(" · "))),
      h("p", { class: "muted" }, "Opened ", timeOf(session.created_at),
        isOpen && session.expires_at ? h("span", {}, ", closes when unused at ", timeOf(session.expires_at)) : "",
        isOpen ? "" : h("span", {}, ". ", h("a", { href: "#/sessions" }, "Open another session"))));
    // Screen readers announce each change of a status.
    if (state.textContent !== this.state.textContent) this.state.replaceChildren(state);
    this.errors.replaceChildren();
    this.interruptButton.disabled = !session.cells?.running;
    this.actions.hidden = !isOpen;
    this.runButton.disabled = !isOpen;
    this.form.hidden = !isOpen && !this.editor.value.trim(); // what was typed is not lost
    return isOpen;
  }

  /** Merge the session's cells into the page, including those that other clients sent. */
  async #listCells(list) {
    const response = await list.read("/api/v1/executions", { session_id: this.id, limit: CELLS_MAX });
    if (!response) return;
    await this.#submitting; // a cell may be listed before its response arrives
    for (const { execution_id: id } of response.executions.toReversed()) if (!this.#cells.has(id)) this.#show(id, this.#newCell(id));
    this.#followNext();
  }

  #newCell(id) {
    const cell = new Cell(sourceOf(id)?.code ?? null, (code) => this.#edit(code));
    cell.accept(id);
    return cell;
  }

  /** Insert a cell: ids are ordered by time. */
  #show(id, cell) {
    const next = [...this.#cells].filter(([other]) => other > id).sort(([a], [b]) => (a < b ? -1 : 1))[0];
    if (next) next[1].element.before(cell.element);
    else this.cells.append(cell.element);
    this.#cells.set(id, cell);
    [...this.#cells].sort(([a], [b]) => (a < b ? -1 : 1)).forEach(([, each], index) => each.setNumber(index + 1));
  }

  /** Follow one cell at a time: they run one after another, and browsers open few connections to a server. */
  async #followNext() {
    if (this.#isFollowing) return;
    this.#isFollowing = true;
    const { signal } = this.#abort;
    for (let cell; !signal.aborted && (cell = [...this.#cells.values()].filter((each) => each.isOpen).sort((a, b) => (a.id < b.id ? -1 : 1))[0]); ) {
      await cell.follow(signal);
    }
    this.#isFollowing = false;
  }

  #run() {
    const code = this.editor.value;
    if (!code.trim() || this.runButton.disabled) return;
    this.editor.value = "";
    this.#autosave.now();
    const cell = new Cell(code, (text) => this.#edit(text));
    cell.setNumber(this.#cells.size + 1);
    this.cells.append(cell.element);
    this.editor.focus();
    this.form.scrollIntoView({ block: "nearest" });
    this.#submitting = this.#submitting.then(() => this.#submit(cell, code));
  }

  async #submit(cell, code) {
    const { signal } = this.#abort;
    try {
      const id = await submitCell(this.path, code, () => cell.show("pending", "The session cannot be reached; retrying"), signal);
      rememberSource(id, { ...emptyDraft(), code }, this.id);
      cell.accept(id);
      this.#show(id, cell);
      this.interruptButton.disabled = false;
      this.#followNext();
    } catch (error) {
      if (!signal.aborted) cell.fail(error);
    }
  }

  async #act(button, act) {
    button.disabled = true;
    try {
      await act();
      await this.#refresh(this.#abort.signal);
    } catch (error) {
      if (!this.#abort.signal.aborted) this.#fail(error);
    }
    if (button !== this.interruptButton) button.disabled = false;
  }

  #edit(code) {
    this.editor.value = code;
    this.form.hidden = false;
    this.editor.focus();
    this.#autosave.now();
  }

  #fail(error) {
    this.errors.replaceChildren(problem(error));
  }
}

function waitingText(count) {
  return count ? `${plural(count, "cell")} waiting` : null;
}
