// The options of a program, as tabs below the editor.

import { openApi } from "./api.js";
import { h } from "./dom.js";

const TEXTS = [
  ["requirements", "Requirements", "requirements_txt", "The text of a requirements.txt. Packages are installed once and cached.", "numpy==2.3.1"],
  ["stdin", "Input", "stdin", "Standard input of the program.", ""],
  ["args", "Arguments", "script_args", "Arguments of the program, one per line.", "--verbose"],
  ["env", "Variables", "env_vars", "Environment variables, one per line.", "NAME=value"],
  ["files", "Files", "output_files", "Patterns of files to return, one per line.", "*.csv"],
  ["commands", "Commands", "pre_commands", "Shell commands that prepare the environment as root, one per line.", "apt-get install -y graphviz"],
];
const LIMITS = [
  ["timeout_seconds", "Time", "seconds"],
  ["memory_mb", "Memory", "MiB"],
  ["disk_mb", "Disk", "MiB"],
  ["cpus", "Processors", "cores"],
  ["cpu_seconds", "Processor time", "seconds"],
  ["cpu_shares", "Processor weight", ""],
];

export class Options {
  #draft;
  #onchange;
  #fields = new Map(); // name in the request -> { tab, input }
  #tabs = [];

  constructor(draft, onchange) {
    [this.#draft, this.#onchange] = [draft, onchange];
    const strip = h("div", { role: "tablist", "aria-label": "Options", class: "tabs" });
    this.element = h("div", { class: "options" }, strip);
    for (const [key, title, name, hint, example] of TEXTS) this.#addTab(strip, key, title, this.#textPanel(key, title, name, hint, example));
    this.#addTab(strip, "limits", "Limits", this.#limitsPanel());
    strip.addEventListener("keydown", (event) => this.#move(event));
    this.#select(0, false);
    this.#mark();
  }

  /** Show the field that the server rejected, and move the focus there. */
  focus(field) {
    const found = this.#fields.get(field) ?? this.#fields.get(field?.replace(/^config\./, "").replace(/\[.*/, ""));
    if (!found) return false;
    this.#select(this.#tabs.findIndex((tab) => tab.key === found.key), false);
    found.input.setAttribute("aria-invalid", "true");
    found.input.addEventListener("input", () => found.input.removeAttribute("aria-invalid"), { once: true });
    found.input.focus();
    return true;
  }

  #addTab(strip, key, title, panel) {
    const button = h("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": `panel-${key}` }, title);
    Object.entries({ role: "tabpanel", id: `panel-${key}`, "aria-labelledby": `tab-${key}` }).forEach(([name, value]) => panel.setAttribute(name, value));
    const index = this.#tabs.push({ key, button, panel }) - 1;
    button.addEventListener("click", () => this.#select(index, true));
    strip.append(button);
    this.element.append(panel);
  }

  #select(index, focus) {
    this.#tabs.forEach(({ button, panel }, at) => {
      button.setAttribute("aria-selected", String(at === index));
      button.tabIndex = at === index ? 0 : -1;
      panel.hidden = at !== index;
    });
    if (focus) this.#tabs[index].button.focus();
  }

  #move(event) {
    const at = this.#tabs.findIndex(({ button }) => button.tabIndex === 0);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: this.#tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#select((to + this.#tabs.length) % this.#tabs.length, true);
  }

  #change(update) {
    update();
    this.#mark();
    this.#onchange();
  }

  /** Mark the tabs whose options are not the defaults. */
  #mark() {
    const draft = this.#draft;
    for (const { key, button } of this.#tabs) {
      const changed = key === "limits"
        ? draft.network || draft.image.trim() || !draft.lastExpression || Object.values(draft.limits).some(Boolean)
        : draft[key].trim();
      button.classList.toggle("changed", Boolean(changed));
    }
  }

  #textPanel(key, title, name, hint, example) {
    const input = h("textarea", { id: `option-${key}`, rows: "4", spellcheck: "false", placeholder: example, "aria-describedby": `hint-${key}`, "aria-label": title });
    input.value = this.#draft[key];
    input.addEventListener("input", () => this.#change(() => (this.#draft[key] = input.value)));
    this.#fields.set(name, { key, input });
    return h("div", {}, input, h("p", { id: `hint-${key}`, class: "hint" }, hint));
  }

  #limitsPanel() {
    const draft = this.#draft;
    const grid = h("div", { class: "limits" });
    for (const [name, title, unit] of LIMITS) {
      // A field of the type number hides what it cannot parse, such as 30s, and the default would apply.
      const input = h("input", { type: "text", inputmode: "decimal", id: `limit-${name}`, autocomplete: "off", "aria-describedby": `hint-${name}` });
      input.value = draft.limits[name] ?? "";
      input.addEventListener("input", () => this.#change(() => (draft.limits[name] = input.value)));
      grid.append(h("div", {}, h("label", { for: input.id }, title, unit && h("span", { class: "muted" }, ` ${unit}`)), input, h("p", { class: "hint", id: `hint-${name}` })));
      this.#fields.set(name, { key: "limits", input });
    }
    const image = h("input", { type: "text", id: "option-image", spellcheck: "false", autocapitalize: "off" });
    image.value = draft.image;
    image.addEventListener("input", () => this.#change(() => (draft.image = image.value)));
    this.#fields.set("docker_image", { key: "limits", input: image });
    grid.append(h("div", { class: "wide" }, h("label", { for: image.id }, "Image"), image));
    const boxes = h("div", { class: "checks" },
      this.#checkbox("network", "Allow network access"),
      this.#checkbox("lastExpression", "Show the value of the last expression"));
    this.#addServerLimits(image);
    return h("div", {}, grid, boxes);
  }

  #checkbox(key, title) {
    const box = h("input", { type: "checkbox", id: `option-${key}` });
    box.checked = this.#draft[key];
    box.addEventListener("change", () => this.#change(() => (this.#draft[key] = box.checked)));
    return h("label", { for: box.id }, box, " ", title);
  }

  /** Add the defaults and ceilings of this server. Without them, the fields still work. */
  async #addServerLimits(image) {
    let schemas;
    try {
      ({ schemas } = (await openApi()).components);
    } catch {
      return;
    }
    image.placeholder = schemas.EvalRequest.properties.docker_image.examples[0];
    for (const [name] of LIMITS) {
      const { default: standard, maximum } = schemas.RequestedLimits.properties[name];
      const { input } = this.#fields.get(name);
      input.placeholder = standard ?? "no limit";
      const parts = [standard === undefined ? "no default limit" : `default ${standard.toLocaleString("en")}`];
      if (maximum !== undefined) parts.push(`at most ${maximum.toLocaleString("en")}`);
      document.getElementById(`hint-${name}`)?.append(parts.join(", "));
    }
  }
}
