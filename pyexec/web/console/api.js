// Requests to the server of this page.

import { save } from "./dom.js";
import { askToken, showTokenButton, token } from "./token.js";

/** The URL of the server, without a slash at the end. */
export const server = new URL(".", document.baseURI).href.replace(/\/$/, "");

/** An error response. `field` names the field of the request that is wrong. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body.error || `The server responded with status ${status}.`);
    Object.assign(this, { status, code: body.code, field: body.field });
  }
}

/** Send a request; ask for a token if the server requires one. Throw `ApiError` for an error response. `notify` gets
 * `asking` when the user is asked, and `sending` when the request is sent again. */
export async function request(path, options = {}, notify = () => {}) {
  for (;;) {
    const sent = token();
    const headers = { ...options.headers, ...(sent ? { Authorization: `Bearer ${sent}` } : {}) };
    const response = await fetch(server + path, { cache: "no-store", ...options, headers });
    if (sent || response.status === 401) showTokenButton();
    if (response.ok || response.status === 304) return response;
    if (response.status === 401) {
      notify("asking");
      if (await askToken(sent)) {
        notify("sending");
        continue;
      }
    }
    throw new ApiError(response.status, await response.json().catch(() => ({})));
  }
}

export async function getJson(path, options) {
  return (await request(path, options)).json();
}

/** Download a file with the token in a header, and save it. */
export async function download(path, name) {
  const response = await request(path);
  save(new Blob([await response.blob()], { type: "application/octet-stream" }), name);
}

export function executionPath(id) {
  return `/api/v1/executions/${encodeURIComponent(id)}`;
}

export async function kill(id) {
  return (await getJson(executionPath(id), { method: "DELETE" })).status;
}

/** Return the OpenAPI document, read once. */
export const openApi = once(() => getJson("/openapi.json", { cache: "default" }));

function once(read) {
  let result = null;
  return () => (result ??= read().catch((error) => {
    result = null;
    throw error;
  }));
}

export function sleep(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
