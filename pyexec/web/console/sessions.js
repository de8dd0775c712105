// The page "Sessions": those that are open, and a form that opens one.

import { getJson } from "./api.js";
import { badge, h, plural, problem, timeOf } from "./dom.js";
import { poll } from "./poll.js";

const SECONDS = 5;
const NONE = "This server has no sessions.";

export const title = "Sessions";

export function mount(root) {
  const errors = h("div", {});
  const count = h("span", { class: "muted" });
  const rows = h("tbody", {});
  const head = ["Status", "Opened", "Cells", "Replica", "Image", "Session"].map((name) => h("th", { scope: "col" }, name));
  const table = h("table", {}, h("caption", { class: "visually-hidden" }, "Sessions"), h("thead", {}, h("tr", {}, head)), rows);
  const requirements = h("input", { type: "text", id: "session-requirements", placeholder: "numpy pandas", spellcheck: "false" });
  const openButton = h("button", { type: "submit", class: "primary" }, "Open a session");
  const form = h("form", { class: "inline" }, h("label", { for: requirements.id }, "Packages ", requirements), openButton);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    openButton.disabled = true;
    try {
      location.hash = `#/sessions/${await open(requirements.value)}`;
    } catch (error) {
      errors.replaceChildren(problem(error.status === 404 ? new Error(NONE) : error));
    }
    openButton.disabled = false;
  });
  root.append(h("section", {},
    h("header", { class: "title" }, h("h1", { tabindex: "-1" }, "Sessions"), count),
    h("p", { class: "muted" }, "A session is an interpreter that keeps its variables from one cell to the next, even if its replica dies."),
    form, errors, h("div", { class: "scroll" }, table)));
  return poll(SECONDS, async (signal) => {
    try {
      const { sessions } = await getJson("/api/v1/sessions", { signal });
      count.textContent = plural(sessions.filter((session) => session.status === "open").length, "open session");
      rows.replaceChildren(...sessions.map(rowOf));
    } catch (error) {
      if (signal.aborted) return false;
      errors.replaceChildren(problem(error.status === 404 ? new Error(NONE) : error));
      return error.status !== 401 && error.status !== 404;
    }
    return true;
  });
}

async function open(packages) {
  const names = packages.split(/[\s,]+/).filter(Boolean);
  const body = names.length ? { requirements_txt: names.join("\n") } : {};
  const headers = { "Content-Type": "application/json" };
  return (await getJson("/api/v1/sessions", { method: "POST", headers, body: JSON.stringify(body) })).id;
}

function rowOf(session) {
  const waiting = session.cells?.waiting ?? 0;
  const cells = [session.cells?.running ? "running" : "idle", waiting && `${waiting} waiting`].filter(Boolean).join(", ");
  return h("tr", {},
    h("td", {}, badge(session.status), session.close_reason && h("span", { class: "muted" }, ` ${session.close_reason}`)),
    h("td", {}, timeOf(session.created_at)),
    h("td", {}, session.status === "open" ? cells : ""),
    h("td", {}, session.replica ?? ""),
    h("td", {}, session.docker_image ?? ""),
    h("td", {}, h("a", { class: "id", href: `#/sessions/${session.id}`, title: session.id, "aria-label": `Session ${session.id}` }, `…${session.id.slice(-8)}`)));
}
