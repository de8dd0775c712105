// The output of a program: text only, and never more of it in the page than a browser handles with ease.

import { AnsiReader } from "./ansi.js";
import { download, executionPath } from "./api.js";
import { announce, formatBytes, h } from "./dom.js";

const KEPT = 256 * 1024; // characters in the page
const BLOCK = 8 * 1024;
const BLOCK_MAX = 16 * 1024; // a longer line is cut into several blocks
const ANNOUNCED = 16 * 1024; // a screen reader reads no more than this
const STREAMS = ["stdout", "stderr", "setup"];

export class OutputView {
  #readers = {};
  #pending = [];
  #pendingLength = 0;
  #scheduled = false;
  #blocks = []; // { element, length }
  #line = []; // nodes of the line that is not complete
  #kept = 0;
  #bytes = 0;
  #isCut = false;

  constructor(label = "Output") {
    this.size = h("span", { class: "muted" });
    this.saveButton = h("button", { type: "button", class: "quiet", hidden: true }, "Save as file");
    this.note = h("p", { class: "notice", hidden: true });
    this.terminal = h("div", { class: "terminal", role: "log", "aria-live": "polite", "aria-label": label, tabindex: "0", dir: "ltr" });
    this.element = h("section", { class: "output" },
      h("header", {}, h("h2", {}, label), this.size, this.saveButton),
      this.note, this.terminal);
    this.clear();
  }

  clear() {
    for (const stream of STREAMS) this.#readers[stream] = { decoder: new TextDecoder(), ansi: new AnsiReader() };
    [this.#pending, this.#pendingLength, this.#blocks, this.#line] = [[], 0, [], []];
    [this.#kept, this.#bytes, this.#isCut] = [0, 0, false];
    this.terminal.replaceChildren();
    this.terminal.setAttribute("aria-live", "polite");
    this.note.hidden = this.saveButton.hidden = true;
    this.size.textContent = "";
  }

  /** Offer the whole output of an execution as a file. */
  setExecution(id) {
    this.saveButton.hidden = false;
    this.saveButton.onclick = () => download(`${executionPath(id)}/logs`, `${id}.log`).catch((error) => announce(error.message));
  }

  /** Add bytes of a stream. They appear with the next frame, however many there are. */
  push(stream, bytes) {
    this.#bytes += bytes.length;
    const text = this.#readers[stream].decoder.decode(bytes, { stream: true });
    this.#pending.push({ stream, text });
    this.#pendingLength += text.length;
    while (this.#pendingLength - this.#pending[0].text.length > KEPT) {
      this.#pendingLength -= this.#pending.shift().text.length;
      this.#cut();
    }
    if (!this.#scheduled) {
      this.#scheduled = true;
      requestAnimationFrame(() => this.#render());
    }
  }

  #cut() {
    this.#isCut = true;
    for (const { ansi } of Object.values(this.#readers)) ansi.reset();
  }

  #render() {
    this.#scheduled = false;
    const terminal = this.terminal;
    const atEnd = terminal.scrollTop + terminal.clientHeight >= terminal.scrollHeight - 8;
    if (this.#bytes > ANNOUNCED && terminal.getAttribute("aria-live") !== "off") {
      terminal.setAttribute("aria-live", "off");
      announce("The output is long, and is no longer announced.");
    }
    for (const { stream, text } of this.#pending) {
      for (const run of this.#readers[stream].ansi.read(text)) this.#add(stream, run);
    }
    [this.#pending, this.#pendingLength] = [[], 0];
    this.#trim();
    this.size.textContent = formatBytes(this.#bytes);
    if (this.#isCut) {
      this.note.hidden = false;
      this.note.textContent = `This page shows the end of the output. Save it as a file to see all ${formatBytes(this.#bytes)}.`;
    }
    if (atEnd) terminal.scrollTop = terminal.scrollHeight;
  }

  #add(stream, run) {
    if (run.restart) {
      for (const node of this.#line) node.remove();
      this.#line = [];
    } else if (run.mark) {
      this.#append(h("span", { class: "control", title: "control character" }, run.mark), run.mark.length);
    } else {
      const end = run.text.lastIndexOf("\n") + 1;
      if (end) {
        this.#appendText(stream, run.text.slice(0, end), run.style);
        this.#line = [];
      }
      if (end < run.text.length) this.#appendText(stream, run.text.slice(end), run.style);
    }
  }

  #appendText(stream, text, style) {
    for (let start = 0; start < text.length; ) {
      const length = this.#blocks.at(-1)?.length ?? 0;
      let end = Math.min(text.length, start + BLOCK_MAX - length);
      const newline = text.indexOf("\n", start + Math.max(0, BLOCK - length));
      if (newline >= 0 && newline < end) end = newline + 1; // the next block begins with a line
      const names = [stream === "stdout" ? "" : stream, style].filter(Boolean).join(" ");
      const part = text.slice(start, end);
      this.#append(names ? h("span", { class: names }, part) : document.createTextNode(part), part.length);
      start = end;
      if (this.#blocks.at(-1).length >= BLOCK && (part.endsWith("\n") || this.#blocks.at(-1).length >= BLOCK_MAX)) {
        this.#openBlock();
      }
    }
  }

  #append(node, length) {
    if (!this.#blocks.length) this.#openBlock();
    const block = this.#blocks.at(-1);
    block.element.append(node);
    block.length += length;
    this.#kept += length;
    this.#line.push(node);
  }

  #openBlock() {
    const element = h("div", {});
    this.#blocks.push({ element, length: 0 });
    this.terminal.append(element);
  }

  #trim() {
    while (this.#kept > KEPT && this.#blocks.length > 1) {
      const block = this.#blocks.shift();
      block.element.remove();
      this.#kept -= block.length;
      this.#isCut = true;
    }
  }
}
