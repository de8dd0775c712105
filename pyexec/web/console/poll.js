// Keep a page current while its tab is visible.

import { request, sleep } from "./api.js";

const WAIT_SECONDS = 30;
const RETRY_SECONDS = 3;

/** A list whose changes the server reports: it holds each request but the first one until the list has changed. */
class WatchedList {
  #signal;
  #tag = null;

  constructor(signal) {
    this.#signal = signal;
  }

  /** Return the response, or null if nothing has changed. */
  async read(path, query = {}) {
    const parameters = new URLSearchParams({ ...query, ...(this.#tag ? { wait: WAIT_SECONDS } : {}) });
    const headers = this.#tag ? { "If-None-Match": this.#tag } : {};
    const response = await request(`${path}?${parameters}`, { headers, signal: this.#signal });
    if (response.status === 304) return null;
    this.#tag = response.headers.get("ETag");
    return response.json();
  }
}

/**
 * Call `read(signal, list)` again and again, and `fail(error)` if it throws. `read` returns the seconds until the next
 * call, or null for no further call. A hidden tab reads nothing; when it is shown again, it reads everything.
 */
export class Poll {
  #abort = new AbortController();
  #read;
  #fail;
  #wake = () => document.hidden || this.restart();

  constructor(read, fail) {
    this.#read = read;
    this.#fail = fail;
    document.addEventListener("visibilitychange", this.#wake);
    this.restart();
  }

  /** The signal that is aborted at the next restart, and when the user leaves the page. */
  get signal() {
    return this.#abort.signal;
  }

  restart() {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#loop(this.signal);
  }

  stop() {
    this.#abort.abort();
    document.removeEventListener("visibilitychange", this.#wake);
  }

  async #loop(signal) {
    let list = new WatchedList(signal);
    while (!signal.aborted && !document.hidden) {
      try {
        const seconds = await this.#read(signal, list);
        if (seconds === null) return;
        await sleep(seconds, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#fail(error);
        if (error.status === 401 || error.status === 404) return;
        list = new WatchedList(signal); // a server that was restarted may count its changes from the beginning
        await sleep(RETRY_SECONDS, signal);
      }
    }
  }
}
