// Read something again and again while the page is visible.

import { sleep } from "./api.js";

/** Call `read(signal)` now, then every few seconds while the tab is visible. Return a function that stops it. */
export function poll(seconds, read) {
  let abort = null;
  const loop = async () => {
    abort?.abort();
    const { signal } = (abort = new AbortController());
    while (!signal.aborted && !document.hidden) {
      if ((await read(signal)) === false) return;
      await sleep(seconds, signal);
    }
  };
  const wake = () => document.hidden || loop();
  document.addEventListener("visibilitychange", wake);
  loop();
  return () => {
    abort.abort();
    document.removeEventListener("visibilitychange", wake);
  };
}
