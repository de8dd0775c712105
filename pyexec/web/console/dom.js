// Build elements, and format values for people.

/** Build an element. Strings become text, never HTML; keys that begin with "on" are listeners, others attributes. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Announce a change of the page to users of screen readers. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}

export function formatSeconds(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 99.95) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  const [days, hours] = [Math.floor(whole / 86400), Math.floor((whole % 86400) / 3600)];
  const [minutes, rest] = [Math.floor((whole % 3600) / 60), whole % 60];
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${rest} s`;
}

export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["KB", "MB", "GB", "TB"];
  let [value, unit] = [bytes / 1000, 0];
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value.toFixed(value < 9.95 ? 1 : 0)} ${units[unit]}`;
}

export function formatMebibytes(mebibytes) {
  return mebibytes < 1024 ? `${mebibytes} MiB` : `${+(mebibytes / 1024).toFixed(1)} GiB`;
}

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
const TODAY = new Intl.DateTimeFormat(undefined, CLOCK);
const OTHER_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", ...CLOCK });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

/** Return a <time> element: the time of day today, the date as well on other days. */
export function timeOf(text) {
  const time = new Date(text);
  const isToday = time.toDateString() === new Date().toDateString();
  return h("time", { datetime: text, title: FULL.format(time) }, (isToday ? TODAY : OTHER_DAY).format(time));
}

/** Return the status as a label. A program that ends with an error is `completed`, too, but looks different. */
export function badge(status, exitCode = 0) {
  return h("span", { class: `badge ${status}${status === "completed" && exitCode ? " nonzero" : ""}` }, status);
}

export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** Copy text. On a page without HTTPS, browsers offer only the deprecated `execCommand`. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = h("textarea", { class: "visually-hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function copyButton(label, text) {
  const button = h("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", async () => {
    await copy(text());
    button.textContent = "Copied";
    announce(`Copied: ${label}`);
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

/** Ask before something is lost. Return true if the user agrees. */
export function confirmDialog(question, consequence, action) {
  const form = h("form", { method: "dialog" },
    h("h2", { id: "question" }, question), h("p", { id: "consequence" }, consequence),
    h("div", { class: "actions" },
      h("button", { type: "submit", class: "danger", value: "ok" }, action),
      h("button", { type: "submit", value: "" }, "Cancel")));
  const dialog = h("dialog", { "aria-labelledby": "question", "aria-describedby": "consequence" }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "ok");
    });
  });
}

/** Show an error in place of what it concerns. */
export function problem(error) {
  return h("p", { class: "notice error", role: "alert" }, error.message || String(error));
}

/** Save data as a file of the user. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
