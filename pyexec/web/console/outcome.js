// Describe the state and the outcome of an execution, and why a session was closed.

import { formatMebibytes, formatSeconds, h } from "./dom.js";

const FAILURES = {
  timeout: "Stopped: it ran longer than its time limit.",
  cpu_limit: "Stopped: it used more processor time than its limit.",
  out_of_memory: "Stopped: it used more memory than its limit.",
  disk_limit: "Stopped: its files took more space than its limit.",
  process_limit: "Stopped: it kept trying to start processes beyond its limit.",
  output_limit: "Stopped: it printed more than the server keeps.",
  setup_failed: "Not started: the setup failed.",
  setup_timeout: "Not started: the setup took too long.",
  image_unavailable: "Not started: the image cannot be used.",
  queue_timeout: "Not started: it waited too long for a free slot.",
  lost: "Lost: its replica or engine died, and no other replica could adopt it.",
  internal: "Failed: an error in the server; see its log.",
};

const CLOSE_REASONS = {
  deleted: "Closed by a client.",
  idle: "Closed, because it was not used.",
  lifetime: "Closed at the end of its lifetime.",
  memory: "Closed: it used more memory than its limit.",
  lost: "Lost: its container or its machine is gone.",
  shutdown: "Closed, because its server was shut down.",
};

/** Return one sentence for a result or a summary. */
export function outcomeOf(result) {
  switch (result.status) {
    case "pending":
      return "Waiting for a slot or for its setup.";
    case "running":
      return "Running.";
    case "killed":
      return "Stopped by a kill request.";
    case "failed":
      return FAILURES[result.error_type] ?? "Failed.";
    default:
      return endOf(result);
  }
}

function endOf({ exit_code: code, error_type: type, error_line: line }) {
  if (code === 0) return "Finished.";
  if (type) return `Ended with ${type}${line ? ` in line ${line}` : ""}.`;
  if (code > 128 && code <= 192) return `Ended by signal ${code - 128}.`;
  return `Ended with exit code ${code}.`;
}

/** Return one sentence that says why a session was closed. */
export function closeReason(reason) {
  return CLOSE_REASONS[reason] ?? "Closed.";
}

/** Return pairs of label and value: times, exit code, usage. */
export function factsOf(result) {
  const timings = result.timings_ms;
  const usage = result.usage;
  const truncated = Object.entries(result.truncated ?? {}).filter(([, cut]) => cut).map(([name]) => name);
  return [
    ["Exit code", result.exit_code],
    ["Queue", timings && formatSeconds(timings.queue / 1000)],
    ["Setup", timings && formatSeconds(timings.setup / 1000)],
    ["Run", timings && formatSeconds(timings.run / 1000)],
    ["Processor", usage && formatSeconds(usage.cpu_seconds)],
    ["Memory", usage && formatMebibytes(Math.round(usage.peak_memory_bytes / 1048576))],
    ["Entrypoint", result.entrypoint],
    ["Tenant", result.tenant],
    ["Session", result.session_id],
    ["Cut", truncated.length ? truncated.join(", ") : null],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
}

export function factList(result) {
  return h("dl", { class: "facts" }, factsOf(result).map(([label, value]) =>
    h("div", {}, h("dt", {}, label), h("dd", {}, label === "Session" ? h("a", { href: `#/sessions/${value}` }, value) : String(value)))));
}

/** Return the message of an exception or of a failure, and the value of the last expression. */
export function detailsOf(result) {
  const value = result.result;
  const type = result.status === "completed" && result.error_type;
  // An exception without a message has its type as error, which the headline already shows.
  const hasMessage = result.error && result.error !== type;
  return [
    hasMessage && h("p", { class: "notice error" }, type ? `${type}: ${result.error}` : result.error),
    value !== undefined && value !== null && h("div", { class: "value" }, h("span", { class: "muted" }, "Value"), h("pre", { dir: "ltr" }, value)),
  ].filter(Boolean);
}
