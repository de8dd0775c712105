// The events of an execution, followed to its end over broken connections.

import { ApiError, executionPath, getJson, request, sleep } from "./api.js";

const ENDS = new Set(["finished", "failed", "killed"]);
const RETRY_SECONDS_MAX = 5;
const BUSY_MS = 16;

/** Yield the Server-Sent Events of a body. Large events arrive in many chunks, so each chunk is searched once. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = [];
  let busySince = performance.now();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    if (performance.now() - busySince > BUSY_MS) {
      await sleep(0); // chunks that have already arrived would leave no time for the user
      busySince = performance.now();
    }
    let start = 0;
    if (value.startsWith("\n") && parts.at(-1)?.endsWith("\n")) {
      yield parseEvent(parts.join(""));
      [parts, start] = [[], 1];
    }
    for (let end; (end = value.indexOf("\n\n", start)) >= 0; start = end + 2) {
      yield parseEvent(parts.join("") + value.slice(start, end));
      parts = [];
    }
    if (start < value.length) parts.push(value.slice(start));
  }
}

function parseEvent(text) {
  const event = { name: null, id: null, data: null };
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    else if (line.startsWith("id: ")) event.id = line.slice(4);
    else if (line.startsWith("data: ")) event.data = line.slice(6);
  }
  return event;
}

/** Run a program at `/api/v1/eval`, or a cell at the `eval` of a session. Returns like `follow`. The key lets a repeated request find the same execution. */
export async function run(path, body, listener, signal) {
  const headers = { "Content-Type": "application/json", Accept: "text/event-stream", "Idempotency-Key": randomKey() };
  const options = { method: "POST", headers, body: JSON.stringify(body), signal };
  return followFrom(() => request(path, options), null, listener, signal);
}

/** Pass the events of an execution to `listener(name, data)`; return its result. */
export async function follow(id, listener, signal) {
  return followFrom(null, id, listener, signal);
}

async function followFrom(first, id, listener, signal) {
  let [last, failures] = [null, 0];
  for (;;) {
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const response = await (id === null ? first() : request(`${executionPath(id)}/events`, { headers, signal }));
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
      const isFinal = error instanceof ApiError && error.status !== 503;
      if (signal?.aborted || isFinal || error instanceof SyntaxError) throw error;
      if (id === null && error instanceof ApiError) throw error; // nothing runs: the user decides
    }
    if (signal?.aborted) throw new DOMException("left the page", "AbortError");
    failures += 1;
    listener("disconnected", {});
    await sleep(Math.min(0.25 * 2 ** failures, RETRY_SECONDS_MAX), signal);
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
