// The page "Cluster": replicas, slots, queue, pool.

import { getJson } from "./api.js";
import { formatMebibytes, formatSeconds, h, plural, problem } from "./dom.js";
import { Poll } from "./poll.js";

const SECONDS = 5;

export const title = "Cluster";

export function mount(root) {
  const errors = h("div", {});
  const summary = h("p", { class: "muted" });
  const body = h("div", {});
  root.append(h("section", {}, h("header", { class: "title" }, h("h1", { tabindex: "-1" }, "Cluster"), summary), errors, body));
  const read = async (signal) => {
    const cluster = await getJson("/api/v1/cluster", { signal });
    errors.replaceChildren();
    summary.textContent = summaryOf(cluster);
    body.replaceChildren(...contentsOf(cluster));
    return SECONDS;
  };
  const poll = new Poll(read, (error) => errors.replaceChildren(problem(error)));
  return () => poll.stop();
}

function summaryOf({ replicas, leader }) {
  const open = replicas.reduce((sum, { sessions }) => sum + (sessions?.open ?? 0), 0);
  return [plural(replicas.length, "replica"), leader ? `led by ${leader}` : "no leader", open && plural(open, "open session")].filter(Boolean).join(", ");
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
  const { name, address, version, ready, draining, leader, warnings, slots, memory_mb: memory, pool, reuse, sessions, uptime_seconds: uptime } = replica;
  const state = draining ? ["draining", "pending"] : ready ? ["ready", "completed"] : ["not ready", "failed"];
  const fact = (label, value) => h("div", {}, h("dt", {}, label), h("dd", {}, value));
  return h("article", { class: "card" },
    h("header", {}, h("h2", { class: "mono" }, name), leader && h("span", { class: "badge leader" }, "leader"), h("span", { class: `badge ${state[1]}` }, state[0])),
    h("p", { class: "muted" }, [address, version && `version ${version}`, uptime !== undefined && `up ${formatSeconds(uptime)}`].filter(Boolean).join(" · ")),
    slots && meter("Slots", slots.used, slots.total, (value) => String(value)),
    memory && meter("Memory", memory.used, memory.total, formatMebibytes),
    h("dl", { class: "facts rows" },
      (pool ?? []).map(({ image, idle, starting }) => fact(`Sandboxes of ${image}`, `${idle} idle${starting ? `, ${starting} starting` : ""}`)),
      reuse && reuse.served + reuse.discarded > 0 && [fact("Programs in used sandboxes", reuse.served.toLocaleString("en")), fact("Used sandboxes discarded", reuse.discarded.toLocaleString("en"))],
      sessions && fact("Open sessions", String(sessions.open))),
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
