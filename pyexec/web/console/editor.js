// The editor: a text area that works alone, and becomes an editor with colours if the library loads.

import { h } from "./dom.js";

const HIGHLIGHTED_MAX = 100_000; // colours of a longer text would delay each key

export class Editor {
  #editor = null;
  #area;

  constructor(label, value, onchange) {
    this.#area = h("textarea", { class: "code", "aria-label": label, spellcheck: "false", autocapitalize: "off", autocomplete: "off", rows: "14" });
    this.#area.value = value;
    this.#area.addEventListener("input", onchange);
    this.element = h("div", { class: "editor" }, this.#area);
    this.#upgrade(label, onchange);
  }

  get value() {
    return this.#editor ? this.#editor.value : this.#area.value;
  }

  set value(text) {
    if (this.#editor) this.#editor.setOptions({ value: text, language: languageOf(text) });
    else this.#area.value = text;
  }

  focus() {
    (this.#editor?.textarea ?? this.#area).focus();
  }

  async #upgrade(label, onchange) {
    let library;
    try {
      library = await load();
    } catch {
      return; // the text area stays
    }
    const hadFocus = document.activeElement === this.#area;
    const { selectionStart, selectionEnd } = this.#area;
    const value = this.#area.value;
    const options = { language: languageOf(value), value, tabSize: 4, insertSpaces: true, lineNumbers: true, wordWrap: false };
    const [{ createEditor }, { defaultCommands, editHistory }, { matchBrackets }] = library;
    const editor = createEditor(this.element, options, defaultCommands(), editHistory(), matchBrackets());
    const { textarea } = editor;
    textarea.setAttribute("aria-label", label);
    textarea.setAttribute("aria-description", "Tab indents. To move the focus with Tab, press Control M first.");
    textarea.addEventListener("input", onchange);
    this.#area.remove();
    this.#editor = editor;
    if (hadFocus) {
      textarea.focus();
      textarea.setSelectionRange(selectionStart, selectionEnd);
    }
  }
}

/** Call `run` on submit and on Enter with one of these modifiers (names of KeyboardEvent fields). Capture the key before
 *  the editor. */
export function onRun(form, keys, run) {
  form.addEventListener("submit", (event) => (event.preventDefault(), run()));
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !keys.some((key) => event[key])) return;
    event.preventDefault();
    event.stopPropagation();
    run();
  }, true);
}

function languageOf(text) {
  return text.length > HIGHLIGHTED_MAX ? "plain" : "python";
}

async function load() {
  document.head.append(h("link", { rel: "stylesheet", href: "console/editor/layout.css" }));
  const [library] = await Promise.all([
    Promise.all([import("./editor/index.js"), import("./editor/extensions/commands/index.js"), import("./editor/extensions/matchBrackets/index.js")]),
    import("./editor/prism/languages/python.js"),
    import("./editor/languages/python.js"),
  ]);
  return library;
}
