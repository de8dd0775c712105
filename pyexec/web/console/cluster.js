// The page "Cluster": replicas, slots, queue, pool.

import { getJson } from "./api.js";
import { formatMebibytes, formatSeconds, h, plural, problem } from "./dom.js";
import { poll } from "./poll.js";

const SECONDS = 5;

export const title = "Cluster";

export function mount(root) {
  const errors = h("div", {});
  const summary = h("p", { class: "muted" });
  const body = h("div", {});
  root.append(h("section", {}, h("header", { class: "title" }, h("h1", { tabindex: "-1" }, "Cluster"), summary), errors, body));
  return poll(SECONDS, async (signal) => {
    try {
      const cluster = await getJson("/api/v1/cluster", { signal });
      errors.replaceChildren();
      summary.textContent = summaryOf(cluster);
      body.replaceChildren(...contentsOf(cluster));
    } catch (error) {
      if (signal.aborted) return false;
      errors.replaceChildren(problem(error));
      return error.status !== 401 && error.status !== 404;
    }
    return true;
  });
}

function summaryOf({ replicas, sessions, leader }) {
  const parts = [plural(replicas.length, "replica"), leader ? `led by ${leader}` : "no leader"];
  if (sessions) parts.push(`${plural(sessions.open, "open session")}`);
  return parts.join(", ");
}

function contentsOf({ replicas, queue }) {
  const rows = (queue ?? []).map(({ tenant, waiting, running }) =>
    h("tr", {}, h("th", { scope: "row" }, tenant ?? "all"), h("td", { class: "number" }, String(waiting)), h("td", { class: "number" }, String(running))));
  return [
    h("div", { class: "cards" }, replicas.map(replicaCard)),
    h("section", {}, h("h2", {}, "Queue"),
      rows.length
        ? h("table", { class: "narrow" }, h("thead", {}, h("tr", {}, ["Tenant", "Waiting", "Running"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows))
        : h("p", { class: "muted" }, "Nothing waits.")),
  ];
}

function replicaCard(replica) {
  const { name, address, version, ready, draining, leader, warnings, slots, memory_mb: memory, pool, reuse, uptime_seconds: uptime } = replica;
  const state = draining ? ["draining", "pending"] : ready ? ["ready", "completed"] : ["not ready", "failed"];
  const reused = reuse && reuse.served + reuse.discarded > 0 && `${plural(reuse.served, "program")} in used sandboxes, ${reuse.discarded.toLocaleString("en")} discarded`;
  return h("article", { class: "card" },
    h("header", {}, h("h2", {}, name), leader && h("span", { class: "badge leader" }, "leader"), h("span", { class: `badge ${state[1]}` }, state[0])),
    h("p", { class: "muted" }, [address, version && `version ${version}`, uptime !== undefined && `up ${formatSeconds(uptime)}`].filter(Boolean).join(" · ")),
    slots && meter("Slots", slots.used, slots.total, (value) => String(value)),
    memory && meter("Memory", memory.used, memory.total, formatMebibytes),
    h("dl", { class: "facts" },
      (pool ?? []).map(({ image, idle, starting }) => h("div", {}, h("dt", {}, image), h("dd", {}, `${idle} idle${starting ? `, ${starting} starting` : ""}`))),
      reused && h("div", {}, h("dt", {}, "Reuse"), h("dd", {}, reused))),
    (warnings ?? []).map((text) => h("p", { class: "notice" }, text)));
}

function meter(label, used, total, format) {
  if (!total) return h("p", { class: "meter" }, h("span", {}, label), h("span", {}, `${format(used)} used`));
  const share = Math.min(100, (100 * used) / total);
  return h("div", { class: "meter" },
    h("span", {}, label), h("span", {}, `${format(used)} of ${format(total)}`),
    h("div", { class: "gauge", role: "meter", "aria-label": label, "aria-valuenow": used, "aria-valuemin": "0", "aria-valuemax": total },
      h("div", { style: { width: `${share}%` } })));
}
