// The events of an execution, followed to its end over broken connections.

import { ApiError, executionPath, getJson, request, sleep } from "./api.js";
import { OutputFilter } from "./output_filter.js";

const ENDS = new Set(["finished", "failed", "killed"]);
const RETRY_SECONDS_MAX = 5;
const BUSY_MS = 10;
const UNAVAILABLE = new Set([502, 503, 504]); // a proxy sends the others while the server restarts

/** Yield the Server-Sent Events of a body, and let the browser work in between, however fast they arrive. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let [event, line, filter] = [{}, [], null];
  let busySince = performance.now();
  const rest = async () => {
    if (performance.now() - busySince < BUSY_MS) return;
    await nextTask();
    busySince = performance.now();
  };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    for (let start = 0; start < value.length; ) {
      const end = value.indexOf("\n", start);
      const piece = value.slice(start, end < 0 ? value.length : end);
      if (ENDS.has(event.event)) filter ??= new OutputFilter();
      line.push(filter ? filter.keep(piece) : piece);
      if (end < 0) break;
      start = end + 1;
      const [name, text] = splitLine(line.join("") + (filter?.end() ?? ""));
      line = [];
      if (name) event[name] = text;
      if (name !== null) continue;
      yield { name: event.event ?? null, id: event.id ?? null, data: event.data ?? null };
      [event, filter] = [{}, null];
      await rest();
    }
    await rest();
  }
}

/** Return the name and the value of a field; an empty name for a comment, null at the end of an event. */
function splitLine(line) {
  if (line === "") return [null, ""];
  const colon = line.indexOf(": ");
  return colon < 0 ? ["", ""] : [line.slice(0, colon), line.slice(colon + 2)];
}

/** Wait until the browser has handled what the user did. Timers wait a second in a tab that is hidden. */
function nextTask() {
  return globalThis.scheduler?.yield ? scheduler.yield() : new Promise((resolve) => setTimeout(resolve));
}

/** Run a program, and return like `follow`. The key lets a repeated request find the same execution. While the user is
 * asked for a token, pass `asking` to `listener`, and `sending` when the request is sent again. */
export async function run(body, listener, signal) {
  const options = { ...post(body), signal };
  options.headers.Accept = "text/event-stream";
  return followFrom(() => request("/api/v1/eval", options, (name) => listener(name, {})), null, listener, signal);
}

/** Submit a cell to a session, and return the id of its execution. While the session moves to another replica, call
 * `waiting` and try again: the key lets no cell run twice. */
export async function submitCell(path, code, waiting, signal) {
  const options = { ...post({ code }), signal };
  for (let failures = 1; ; failures += 1) {
    try {
      return (await getJson(`${path}/eval/async`, options)).execution_id;
    } catch (error) {
      if (signal.aborted || (error instanceof ApiError && !UNAVAILABLE.has(error.status))) throw error;
      waiting(error);
      await backOff(failures, signal);
    }
  }
}

function backOff(failures, signal) {
  return sleep(Math.min(0.25 * 2 ** failures, RETRY_SECONDS_MAX), signal);
}

function post(body) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": randomKey() };
  return { method: "POST", headers, body: JSON.stringify(body) };
}

/** Pass the events of an execution to `listener(name, data)`; return its result, without `stdout` and `stderr`. If the
 * connection is lost, pass `disconnected`, and `connected` when it is back. */
export async function follow(id, listener, signal) {
  return followFrom(null, id, listener, signal);
}

async function followFrom(first, id, listener, signal) {
  let [last, failures] = [null, 0];
  for (;;) {
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const response = await (id === null ? first() : request(`${executionPath(id)}/events`, { headers, signal }));
      if (failures) listener("connected", {});
      if (response.status === 204) return await getJson(executionPath(id), { signal });
      for await (const event of readEvents(response.body)) {
        if (event.name === null) continue; // a comment that keeps the connection open
        [last, failures] = [event.id, 0];
        const data = JSON.parse(event.data);
        id ??= data.execution_id ?? null;
        listener(event.name, data);
        if (ENDS.has(event.name)) return data;
      }
    } catch (error) {
      const isFinal = error instanceof ApiError && !UNAVAILABLE.has(error.status);
      if (signal?.aborted || isFinal || error instanceof SyntaxError) throw error;
      if (id === null && error instanceof ApiError) throw error; // nothing runs: the user decides
    }
    if (signal?.aborted) throw new DOMException("left the page", "AbortError");
    failures += 1;
    listener("disconnected", {});
    await backOff(failures, signal);
  }
}

/** Return a random key. `crypto.randomUUID` needs HTTPS. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `console-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** Decode base64 to bytes. */
export function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
