// The API token of this tab. It is kept until the tab is closed, and sent only as a header.

import { h } from "./dom.js";

const KEY = "pyexec.token";
let asking = null;
let declined = false;

export function token() {
  return sessionStorage.getItem(KEY);
}

/** Ask for a token once, however many requests need it. Return false if the user gives none. */
export function askToken(rejected) {
  if (declined) return Promise.resolve(false);
  asking ??= ask(rejected).finally(() => (asking = null));
  return asking;
}

/** Ask for another token, at the user's request. */
export function changeToken() {
  declined = false;
  return askToken(null);
}

export function showTokenButton() {
  const button = document.getElementById("token");
  button.hidden = false;
  button.onclick = async () => {
    if (await changeToken()) location.reload();
  };
}

function ask(rejected) {
  const input = h("input", { type: "password", id: "token-input", autocomplete: "off", required: true });
  const wrong = rejected && h("p", { class: "notice error", role: "alert" }, "The server does not accept this token.");
  const form = h("form", { method: "dialog" },
    h("h2", {}, "API token"),
    h("p", {}, "This server requires a token. It stays in this tab, and is sent only to this server."),
    wrong,
    h("label", { for: "token-input" }, "Token"),
    input,
    h("div", { class: "actions" },
      h("button", { type: "submit", class: "primary", value: "ok" }, "Continue"),
      h("button", { type: "submit", formnovalidate: true, value: "" }, "Cancel")));
  const dialog = h("dialog", { "aria-label": "API token" }, form);
  document.body.append(dialog);
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok" && input.value.trim();
      dialog.remove();
      if (given) sessionStorage.setItem(KEY, given);
      declined = !given;
      resolve(Boolean(given));
    });
  });
}
