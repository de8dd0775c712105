// The list of executions: newest first, live, loaded page by page while the user scrolls.

import { getJson } from "./api.js";
import { badge, formatSeconds, h, plural, problem, timeOf } from "./dom.js";
import { outcomeOf } from "./outcome.js";
import { Poll } from "./poll.js";

const PATH = "/api/v1/executions";
const PAGE = 100;
const PAUSE_SECONDS = 1; // for each request, however busy the server is
const STATUSES = ["", "pending", "running", "completed", "failed", "killed"];

export const title = "Executions";

export function mount(root) {
  const page = new ExecutionsPage();
  root.append(page.element);
  page.start();
  return () => page.leave();
}

class ExecutionsPage {
  #rows = new Map(); // id -> { summary, element }
  #cursors = [null]; // where each loaded page begins
  #next = null; // where the page after them begins
  #poll = null;
  #tenant = "";
  #loading = false;

  constructor() {
    this.filter = h("select", { id: "filter-status" }, STATUSES.map((status) => h("option", { value: status }, status || "all")));
    this.filter.addEventListener("change", () => this.#restart());
    this.tenants = h("select", { id: "filter-tenant" }, h("option", { value: "" }, "all"));
    this.tenants.addEventListener("change", () => ((this.#tenant = this.tenants.value), this.#show()));
    this.tenantLabel = h("label", { for: "filter-tenant", hidden: true }, "Tenant ", this.tenants);
    this.count = h("span", { class: "muted" });
    this.errors = h("div", {});
    this.body = h("tbody", { role: "rowgroup" });
    this.more = h("button", { type: "button", class: "quiet more", hidden: true, onclick: () => this.#loadMore() }, "Show older executions");
    const head = ["Status", "Accepted", "Outcome", "Duration", "Tenant", "Execution"].map((name) => h("th", { scope: "col", role: "columnheader" }, name));
    // The rows are grids, so that the browser skips those that are out of sight: their roles must be said.
    this.table = h("table", { class: "executions no-tenants", role: "table" }, h("caption", { class: "visually-hidden" }, "Executions, newest first"), h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)), this.body);
    this.element = h("section", {},
      h("header", { class: "title" }, h("h1", { tabindex: "-1" }, "Executions"), this.count,
        h("div", { class: "filters" }, h("label", { for: "filter-status" }, "Status ", this.filter), this.tenantLabel)),
      this.errors, this.table, this.more);
  }

  start() {
    this.observer = new IntersectionObserver(([entry]) => entry.isIntersecting && this.#loadMore(), { rootMargin: "600px" });
    this.observer.observe(this.more);
    this.#poll = new Poll((signal, list) => this.#read(signal, list), (error) => this.errors.replaceChildren(problem(error)));
  }

  leave() {
    this.#poll.stop();
    this.observer.disconnect();
  }

  #restart() {
    this.#reset();
    this.#next = null;
    this.#poll.restart();
  }

  /** Read the first page, and each other page that has an open execution. */
  async #read(signal, list) {
    const first = await list.read(PATH, this.#query(null));
    this.errors.replaceChildren();
    if (!first) return PAUSE_SECONDS;
    const known = [...this.#rows.keys()].reduce((a, b) => (a > b ? a : b), "");
    if (known && first.next_cursor && first.next_cursor > known) this.#reset(); // more than a page is new
    if (this.#cursors.length === 1) this.#next = first.next_cursor;
    this.#merge(null, first);
    let requests = 1;
    for (const cursor of this.#cursors.slice(1)) {
      if (!this.#hasOpen(cursor)) continue;
      this.#merge(cursor, await this.#page(cursor, signal));
      requests += 1;
    }
    this.#show();
    return PAUSE_SECONDS * requests;
  }

  #reset() {
    this.#rows.clear();
    this.body.replaceChildren();
    this.#cursors = [null];
  }

  #hasOpen(cursor) {
    const next = this.#cursors[this.#cursors.indexOf(cursor) + 1] ?? "";
    return [...this.#rows].some(([id, { summary }]) => id < cursor && id >= next && (summary.status === "pending" || summary.status === "running"));
  }

  #query(cursor) {
    const status = this.filter.value;
    return { limit: PAGE, ...(status ? { status } : {}), ...(cursor ? { cursor } : {}) };
  }

  #page(cursor, signal) {
    return getJson(`${PATH}?${new URLSearchParams(this.#query(cursor))}`, { signal });
  }

  async #loadMore() {
    if (!this.#next || this.#loading) return;
    this.#loading = true;
    const cursor = this.#next;
    try {
      const page = await this.#page(cursor, this.#poll.signal);
      if (cursor !== this.#next) return; // the list was restarted meanwhile
      this.#cursors.push(cursor);
      this.#next = page.next_cursor;
      this.#merge(cursor, page);
      this.#show();
    } catch (error) {
      if (error.name !== "AbortError") this.errors.replaceChildren(problem(error));
    } finally {
      this.#loading = false;
    }
  }

  /** Merge one page into the list. Executions in its range that it lacks were deleted, or have another status now. */
  #merge(cursor, { executions, next_cursor: next }) {
    const listed = new Set(executions.map((summary) => summary.execution_id));
    for (const [id, { element }] of this.#rows) {
      if ((cursor === null || id < cursor) && (next === null || id >= next) && !listed.has(id)) {
        element.remove();
        this.#rows.delete(id);
      }
    }
    let after = [...this.#rows.keys()].filter((id) => cursor !== null && id >= cursor).reduce((a, b) => (a && a < b ? a : b), null);
    for (const summary of executions) {
      const id = summary.execution_id;
      const row = this.#rows.get(id);
      if (!row || JSON.stringify(row.summary) !== JSON.stringify(summary)) {
        const element = rowOf(summary);
        if (row) row.element.replaceWith(element);
        else if (after) this.#rows.get(after).element.after(element);
        else this.body.prepend(element);
        this.#rows.set(id, { summary, element });
      }
      after = id;
    }
  }

  #show() {
    const names = new Set([...this.#rows.values()].map(({ summary }) => summary.tenant).filter(Boolean));
    this.table.classList.toggle("no-tenants", !names.size);
    this.tenantLabel.hidden = names.size < 2;
    for (const name of names) {
      if (![...this.tenants.options].some((option) => option.value === name)) this.tenants.append(h("option", { value: name }, name));
    }
    let shown = 0;
    for (const { summary, element } of this.#rows.values()) {
      element.hidden = Boolean(this.#tenant) && summary.tenant !== this.#tenant;
      shown += !element.hidden;
    }
    this.more.hidden = !this.#next;
    this.count.textContent = shown ? `${plural(shown, "execution")}${this.#next ? " loaded" : ""}` : "No executions yet. Ended ones are deleted after some minutes.";
  }
}

function rowOf(summary) {
  const id = summary.execution_id;
  const text = summary.error && summary.status !== "killed" ? `${outcomeOf(summary)} ${summary.error}` : outcomeOf(summary);
  return h("tr", { role: "row" },
    h("td", { role: "cell" }, badge(summary.status, summary.exit_code)),
    h("td", { role: "cell", class: "muted" }, timeOf(summary.created_at)),
    h("td", { role: "cell", class: "outcome", title: text }, h("bdi", {}, text)),
    h("td", { role: "cell", class: "number" }, summary.duration_ms === undefined ? "" : formatSeconds(summary.duration_ms / 1000)),
    h("td", { role: "cell", class: "tenant" }, summary.tenant ?? ""),
    h("td", { role: "cell" }, h("a", { class: "id", href: `#/executions/${id}`, title: id, "aria-label": `Execution ${id}` }, `…${id.slice(-8)}`)));
}
