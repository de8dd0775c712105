// The page "Run": write a program, run it, watch it.

import { kill, server } from "./api.js";
import { announce, badge, copyButton, formatSeconds, h, problem } from "./dom.js";
import { DisplaysView } from "./displays.js";
import { Autosave, loadDraft, rememberSource, requestOf, saveDraft } from "./draft.js";
import { Editor, onRun } from "./editor.js";
import { follow, run } from "./events.js";
import { Options } from "./options.js";
import { detailsOf, factList, outcomeOf } from "./outcome.js";
import { OutputView } from "./output.js";
import { commandOf, curlOf, pythonOf } from "./snippets.js";
import { token } from "./token.js";

const LAST_RUN = "pyexec.run";
const PHASES = {
  asking: "Waiting for the API token", sending: "Sending",
  submitted: "Queued", claimed: "Claimed by a replica", preparing: "Preparing the environment", released: "Queued again", running: "Running",
  adopted: "Running, adopted by another replica", kill_requested: "Completing: stopping the program", disconnected: "Connection lost; retrying",
};

export const title = "Run";

export function mount(root) {
  const page = new RunPage();
  root.append(page.element);
  page.resume();
  return () => page.leave();
}

class RunPage {
  #draft = loadDraft();
  #abort = null;
  #id = null;
  #phaseShown = null; // before the connection was lost: status, text, time
  #source = null; // what was run; null if the run began before a reload
  #autosave = new Autosave(() => this.#save());
  #timer = null;

  constructor() {
    const changed = () => this.#autosave.soon();
    this.editor = new Editor("Program", this.#draft.code, changed);
    this.options = new Options(this.#draft, changed);
    this.output = new OutputView();
    this.displays = new DisplaysView();
    this.runButton = h("button", { type: "submit", class: "primary", "aria-keyshortcuts": "Control+Enter" }, "Run ", h("kbd", {}, "Ctrl ↵"));
    this.stopButton = h("button", { type: "button", class: "danger", hidden: true, onclick: () => this.#stop() }, "Stop");
    this.errors = h("div", {});
    this.state = h("div", { class: "run-state", role: "status" });
    this.result = h("section", { class: "result", hidden: true, "aria-label": "Result" }, this.state, this.displays.element, this.output.element);
    const copies = [["curl", curlOf], ["Python", pythonOf], ["CLI", commandOf]].map(([label, write]) =>
      copyButton(label, () => write(this.#request(), server, Boolean(token()))));
    const form = h("form", { class: "program", "aria-label": "Program" },
      this.editor.element,
      this.options.element,
      h("div", { class: "actions" }, this.runButton, this.stopButton, h("span", { class: "copies" }, h("span", { class: "muted" }, "Copy as"), copies)));
    form.noValidate = true; // the server's messages are better
    onRun(form, ["ctrlKey", "metaKey"], () => this.#run());
    this.element = h("div", {}, h("h1", { class: "visually-hidden", tabindex: "-1" }, "Run a program"), form, this.errors, this.result);
  }

  leave() {
    this.#autosave.stop();
    clearInterval(this.#timer);
    this.#abort?.abort();
  }

  /** After a reload, follow the last run of this tab again. */
  resume() {
    const id = sessionStorage.getItem(LAST_RUN);
    this.#source = null;
    if (id) this.#watch((listener, signal) => follow(id, listener, signal), true);
  }

  #request() {
    this.#draft.code = this.editor.value;
    return requestOf(this.#draft);
  }

  #save() {
    this.#draft.code = this.editor.value;
    saveDraft(this.#draft);
  }

  #run() {
    if (!this.stopButton.hidden) return;
    const body = this.#request();
    this.#autosave.now();
    sessionStorage.removeItem(LAST_RUN);
    this.#source = structuredClone(this.#draft);
    this.#watch((listener, signal) => run(body, listener, signal), false);
  }

  async #stop() {
    const id = this.#id ?? sessionStorage.getItem(LAST_RUN);
    if (!id) return this.#withdraw();
    this.stopButton.disabled = true;
    try {
      await kill(id);
    } catch (error) {
      this.errors.replaceChildren(problem(error));
    }
  }

  /** Close the connection of a request that waits for a slot: the server then drops the request. */
  #withdraw() {
    this.#abort.abort();
    this.#setActive(false);
    this.state.replaceChildren(h("p", { class: "headline" }, badge("killed"), h("strong", {}, "Stopped before it began.")));
  }

  async #watch(start, isResumed) {
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    this.#id = null;
    this.#setActive(true);
    try {
      const result = await start((name, data) => !abort.signal.aborted && this.#on(name, data), abort.signal);
      if (!abort.signal.aborted) this.#end(result);
    } catch (error) {
      if (abort.signal.aborted) return;
      if (isResumed) sessionStorage.removeItem(LAST_RUN);
      else this.errors.replaceChildren(problem(error));
      if (!this.#id) this.result.hidden = true;
      if (!isResumed) this.options.focus(error.field);
    }
    if (this.#abort === abort) this.#setActive(false);
  }

  #setActive(active) {
    this.stopButton.hidden = !active;
    this.stopButton.disabled = false;
    this.runButton.disabled = active;
    clearInterval(this.#timer);
    if (!active) return;
    this.errors.replaceChildren();
    this.output.clear();
    this.displays.clear();
    this.result.hidden = false;
    this.#phase("pending", PHASES.sending);
  }

  #phase(status, text, since = performance.now()) {
    if (text !== PHASES.disconnected) this.#phaseShown = [status, text, since];
    const clock = h("span", { class: "muted", "aria-hidden": "true" });
    this.state.replaceChildren(h("p", { class: "headline" }, badge(status), h("strong", {}, text), clock, this.#link()));
    clearInterval(this.#timer);
    this.#timer = setInterval(() => (clock.textContent = formatSeconds((performance.now() - since) / 1000)), 200);
  }

  #link() {
    return this.#id && h("a", { class: "id", href: `#/executions/${this.#id}` }, "Open the execution");
  }

  #on(name, data) {
    if (data.execution_id && !this.#id) {
      this.#id = data.execution_id;
      sessionStorage.setItem(LAST_RUN, this.#id);
      if (this.#source) rememberSource(this.#id, this.#source);
      this.output.setExecution(this.#id);
    }
    if (this.output.show(name, data)) return;
    if (name === "display") this.displays.add(data);
    else if (name === "connected") this.#phase(...this.#phaseShown);
    else if (name in PHASES) this.#phase(name === "running" || name === "adopted" ? "running" : "pending", PHASES[name]);
  }

  #end(result) {
    clearInterval(this.#timer);
    const outcome = outcomeOf(result);
    this.state.replaceChildren(
      h("p", { class: "headline" }, badge(result.status, result.exit_code), h("strong", {}, outcome), this.#link()),
      ...detailsOf(result), factList(result));
    announce(outcome);
  }
}
