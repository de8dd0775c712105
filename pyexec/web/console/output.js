// The output of a program: text only, and never more of it in the page than a browser handles with ease.

import { AnsiReader } from "./ansi.js";
import { download, executionPath } from "./api.js";
import { announce, formatBytes, h } from "./dom.js";
import { bytesOf } from "./events.js";
import { TextBlocks } from "./text_blocks.js";

const SLICE = 1024; // characters
const SLICES_MS = 8; // in one frame
const PENDING_MAX = 16 * 1024 * 1024; // characters that wait; by default, no program prints so much
const ANNOUNCED = 16 * 1024; // a screen reader reads no more than this
const STREAMS = ["stdout", "stderr", "setup"];

export class OutputView {
  #readers = {};
  #pending = []; // { stream, text }
  #pendingLength = 0;
  #isScheduled = false;
  #bytes = 0;
  #isCut = false;

  constructor(heading = "h2", headingClass = null) {
    this.size = h("span", { class: "muted" });
    this.saveButton = h("button", { type: "button", class: "quiet", hidden: true }, "Save as file");
    this.note = h("p", { class: "notice", hidden: true });
    this.blocks = new TextBlocks();
    this.terminal = h("div", { class: "terminal", role: "log", "aria-live": "polite", "aria-label": "Output", tabindex: "0", dir: "ltr" }, this.blocks.element);
    this.scroll = new ScrollToEnd(this.terminal, this.blocks.element);
    this.element = h("section", { class: "output" },
      h("header", {}, h(heading, { class: headingClass }, "Output"), this.size, this.saveButton),
      this.note, this.terminal);
    this.clear();
  }

  clear() {
    for (const stream of STREAMS) this.#readers[stream] = { decoder: new TextDecoder(), ansi: new AnsiReader() };
    [this.#pending, this.#pendingLength, this.#bytes, this.#isCut] = [[], 0, 0, false];
    this.blocks.clear();
    this.terminal.setAttribute("aria-live", "polite");
    this.note.hidden = this.saveButton.hidden = true;
    this.size.textContent = "";
  }

  /** Offer the whole output of an execution as a file. */
  setExecution(id) {
    this.saveButton.hidden = false;
    this.saveButton.onclick = () => download(`${executionPath(id)}/logs`, `${id}.log`).catch((error) => announce(error.message));
  }

  /** Show an event of an execution if it is output. Return false for other events. */
  show(name, data) {
    if (name !== "output" && name !== "setup") return false;
    this.element.hidden = false;
    this.#push(name === "setup" ? "setup" : data.stream, bytesOf(data.data));
    return true;
  }

  /** Add bytes of a stream. They appear within the next frames. */
  #push(stream, bytes) {
    this.#bytes += bytes.length;
    const text = this.#readers[stream].decoder.decode(bytes, { stream: true });
    this.#pending.push({ stream, text });
    this.#pendingLength += text.length;
    if (this.#pendingLength > PENDING_MAX) this.#cut();
    this.#schedule();
  }

  /** Leave out text that waits, and what is before it. */
  #cut() {
    while (this.#pendingLength > PENDING_MAX / 2) this.#pendingLength -= this.#pending.shift().text.length;
    for (const { ansi } of Object.values(this.#readers)) ansi.reset();
    this.blocks.clear();
    this.#isCut = true;
  }

  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    requestAnimationFrame(() => this.#render());
  }

  #render() {
    this.#isScheduled = false;
    const end = performance.now() + SLICES_MS;
    while (this.#pending.length && performance.now() < end) this.#addSlice();
    if (this.blocks.trim()) this.#isCut = true;
    if (this.#pending.length) this.#schedule();
    this.#tell();
    this.scroll.update();
  }

  #addSlice() {
    const [first] = this.#pending;
    const length = sliceEnd(first.text, SLICE);
    for (const run of this.#readers[first.stream].ansi.read(first.text.slice(0, length))) this.#add(first.stream, run);
    this.#pendingLength -= length;
    first.text = first.text.slice(length);
    if (!first.text) this.#pending.shift();
  }

  #add(stream, run) {
    if (run.restart) this.blocks.restartLine();
    else if (run.mark) this.blocks.append(h("span", { class: "control", title: "control character" }, run.mark), run.mark.length);
    else this.blocks.appendText(run.text, [stream === "stdout" ? "" : stream, run.style].filter(Boolean).join(" "));
  }

  #tell() {
    if (this.#bytes > ANNOUNCED && this.terminal.getAttribute("aria-live") !== "off") {
      this.terminal.setAttribute("aria-live", "off");
      announce("The output is long, and is no longer announced.");
    }
    this.size.textContent = formatBytes(this.#bytes);
    this.note.hidden = !this.#isCut;
    if (this.#isCut) this.note.textContent = `This page shows the end of the output. Save it as a file to see all ${formatBytes(this.#bytes)}.`;
  }
}

/** Return where to cut a text, at most one character after `length`: a pair of surrogates stays together. */
export function sliceEnd(text, length) {
  const code = text.charCodeAt(length);
  return code >= 0xdc00 && code <= 0xdfff ? length + 1 : Math.min(length, text.length);
}

/** Keeps an element scrolled to its end until the user scrolls up. Blocks get their true height only when they are
 * laid out, so the end moves without new text. */
class ScrollToEnd {
  #follows = true;
  #top = 0;

  constructor(element, content) {
    this.element = element;
    element.addEventListener("scroll", () => {
      const isAtEnd = element.scrollTop + element.clientHeight >= element.scrollHeight - 8;
      this.#follows = isAtEnd || (this.#follows && element.scrollTop >= this.#top - 1);
    });
    new ResizeObserver(() => this.update()).observe(content);
  }

  update() {
    if (!this.#follows) return;
    this.element.scrollTop = this.element.scrollHeight;
    this.#top = this.element.scrollTop;
  }
}
