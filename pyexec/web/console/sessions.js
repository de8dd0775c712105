// The page "Sessions": open and closed ones, and a form that opens one.

import { getJson, request, sleep } from "./api.js";
import { badge, h, plural, problem, timeOf } from "./dom.js";
import { closeReason } from "./outcome.js";

const WAIT_SECONDS = 30;
const PAUSE_SECONDS = 1; // between two requests, however busy the server is
const RETRY_SECONDS = 5;
const WIDE_ONLY = new Set(["Replica", "Image"]);
const NONE = "This server has no sessions.";

export const title = "Sessions";

export function mount(root) {
  const page = new SessionsPage();
  root.append(page.element);
  page.start();
  return () => page.leave();
}

class SessionsPage {
  #abort = new AbortController();
  #tag = null;

  constructor() {
    this.errors = h("div", {});
    this.count = h("span", { class: "muted" });
    this.rows = h("tbody", {});
    const head = ["Status", "Opened", "State", "Replica", "Image", "Session"].map((name) => h("th", { scope: "col", class: WIDE_ONLY.has(name) ? "wide-only" : null }, name));
    this.table = h("table", { class: "boxed", hidden: true }, h("caption", { class: "visually-hidden" }, "Sessions, newest first"), h("thead", {}, h("tr", {}, head)), this.rows);
    this.packages = h("input", { type: "text", id: "session-requirements", placeholder: "numpy pandas", spellcheck: "false", autocapitalize: "off" });
    this.openButton = h("button", { type: "submit", class: "primary" }, "Open a session");
    const form = h("form", { class: "inline" }, h("label", { for: this.packages.id }, "Packages ", this.packages), this.openButton);
    form.addEventListener("submit", (event) => (event.preventDefault(), this.#open()));
    this.element = h("section", {},
      h("header", { class: "title" }, h("h1", { tabindex: "-1" }, "Sessions"), this.count),
      h("p", { class: "muted" }, "A session is an interpreter that keeps its variables from one cell to the next, even if its replica dies."),
      form, this.errors, h("div", { class: "scroll" }, this.table));
  }

  start() {
    this.wake = () => document.hidden || this.#restart();
    document.addEventListener("visibilitychange", this.wake);
    this.#restart();
  }

  leave() {
    document.removeEventListener("visibilitychange", this.wake);
    this.#abort.abort();
  }

  #restart() {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#tag = null;
    this.#watch(this.#abort.signal);
  }

  /** Read the list again after each change. The server holds the request until there is one. */
  async #watch(signal) {
    while (!signal.aborted && !document.hidden) {
      try {
        await this.#refresh(signal);
        await sleep(PAUSE_SECONDS, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#fail(error);
        this.#tag = null; // a server that was restarted may count from the beginning
        if (error.status === 401 || error.status === 404) return;
        await sleep(RETRY_SECONDS, signal);
      }
    }
  }

  async #refresh(signal) {
    const headers = this.#tag ? { "If-None-Match": this.#tag } : {};
    const response = await request(`/api/v1/sessions${this.#tag ? `?wait=${WAIT_SECONDS}` : ""}`, { headers, signal });
    if (response.status === 304) return;
    const { sessions } = await response.json();
    this.#tag = response.headers.get("ETag");
    const open = sessions.filter((session) => session.status === "open").length;
    this.count.textContent = open ? plural(open, "open session") : "No session is open.";
    this.table.hidden = !sessions.length;
    this.rows.replaceChildren(...sessions.map(rowOf));
    this.errors.replaceChildren();
  }

  async #open() {
    this.openButton.disabled = true;
    this.openButton.textContent = this.packages.value.trim() ? "Installing and opening …" : "Opening …";
    try {
      location.hash = `#/sessions/${await open(this.packages.value)}`;
    } catch (error) {
      this.#fail(error);
    }
    this.openButton.disabled = false;
    this.openButton.textContent = "Open a session";
  }

  #fail(error) {
    this.errors.replaceChildren(problem(error.status === 404 ? new Error(NONE) : error));
  }
}

async function open(packages) {
  const names = packages.split(/[\s,]+/).filter(Boolean);
  const body = names.length ? { requirements_txt: names.join("\n") } : {};
  const headers = { "Content-Type": "application/json" };
  return (await getJson("/api/v1/sessions", { method: "POST", headers, body: JSON.stringify(body) })).id;
}

function rowOf(session) {
  const restarts = session.interpreter_restarts && `Interpreter restarted ${plural(session.interpreter_restarts, "time")}.`;
  return h("tr", {},
    h("td", {}, badge(session.status)),
    h("td", {}, timeOf(session.created_at)),
    h("td", {}, session.status === "open" ? restarts || "Ready for cells." : closeReason(session.close_reason)),
    h("td", { class: "mono wide-only" }, session.replica ?? ""),
    h("td", { class: "mono wide-only" }, session.docker_image ?? ""),
    h("td", {}, h("a", { class: "id", href: `#/sessions/${session.id}`, title: session.id, "aria-label": `Session ${session.id}` }, `…${session.id.slice(-8)}`)));
}
