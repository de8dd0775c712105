// The page "Sessions": open and closed ones, and a form that opens one.

import { getJson } from "./api.js";
import { badge, h, plural, problem, timeOf } from "./dom.js";
import { closeReason } from "./outcome.js";
import { Poll } from "./poll.js";

const PAUSE_SECONDS = 1; // between two requests, however busy the server is
const WIDE_ONLY = new Set(["Replica", "Image"]);
const NONE = "This server has no sessions.";

export const title = "Sessions";

export function mount(root) {
  const page = new SessionsPage();
  root.append(page.element);
  const poll = new Poll((_, list) => page.read(list), (error) => page.fail(error));
  return () => poll.stop();
}

class SessionsPage {
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

  async read(list) {
    const response = await list.read("/api/v1/sessions");
    if (response) this.#show(response.sessions);
    return PAUSE_SECONDS;
  }

  #show(sessions) {
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
      this.fail(error);
    }
    this.openButton.disabled = false;
    this.openButton.textContent = "Open a session";
  }

  fail(error) {
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
