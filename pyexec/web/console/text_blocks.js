// Long text in blocks that the browser lays out only when they are in sight, and only the end of it.

import { h } from "./dom.js";

const WEIGHT_MAX = 256 * 1024; // a character weighs 1
const ELEMENT_WEIGHT = 64; // an element costs the browser more than its characters
const BLOCK = 8 * 1024; // a block ends with the next line
const BLOCK_MAX = 16 * 1024; // a longer line is cut into several blocks
const BLOCK_LINES = 256;
const LINE_LENGTH = 120; // an estimate, for blocks that have not been laid out

export class TextBlocks {
  #blocks = []; // { element, weight, lines }
  #line = []; // { node, weight, block } of the line that is not complete
  #weight = 0;

  constructor() {
    this.element = h("div", { class: "text" });
  }

  clear() {
    [this.#blocks, this.#line, this.#weight] = [[], [], 0];
    this.element.replaceChildren();
  }

  /** Add text with these class names. */
  appendText(text, names) {
    for (let start = 0, end; start < text.length; start = end) {
      const block = this.#openBlock();
      for (end = start; end === start || (block.lines < BLOCK_LINES && block.weight + end - start < BLOCK); block.lines += 1) {
        const newline = text.indexOf("\n", end);
        if (newline < 0) break;
        end = newline + 1;
      }
      const isLine = end > start;
      if (!isLine) end = text.length;
      const part = text.slice(start, end);
      this.append(names ? h("span", { class: names }, part) : document.createTextNode(part), part.length);
      if (isLine) this.#line = [];
    }
  }

  /** Add a node with so many characters to the line. */
  append(node, length) {
    const block = this.#openBlock();
    const weight = length + (node.nodeType === Node.ELEMENT_NODE ? ELEMENT_WEIGHT : 0);
    block.element.append(node);
    block.weight += weight;
    this.#weight += weight;
    this.#line.push({ node, weight, block });
  }

  /** Remove the line that is not complete. */
  restartLine() {
    for (const { node, weight, block } of this.#line) {
      node.remove();
      block.weight -= weight;
      this.#weight -= weight;
    }
    this.#line = [];
    while (this.#blocks.length > 1 && !this.#blocks.at(-1).weight) this.#blocks.pop().element.remove();
  }

  /** Remove the first blocks of a text that is too long. Return true if there were any. */
  trim() {
    let isTrimmed = false;
    for (; this.#weight > WEIGHT_MAX && this.#blocks.length > 1; isTrimmed = true) {
      const first = this.#blocks.shift();
      first.element.remove();
      this.#weight -= first.weight;
      if (this.#line[0]?.block === first) this.#line = this.#line.filter(({ block }) => block !== first);
    }
    this.#estimate();
    return isTrimmed;
  }

  #openBlock() {
    const last = this.#blocks.at(-1);
    const isLineStart = !this.#line.length;
    if (last && last.weight < BLOCK_MAX && !(isLineStart && (last.weight >= BLOCK || last.lines >= BLOCK_LINES))) return last;
    this.#estimate();
    const block = { element: h("div", {}), weight: 0, lines: 0 };
    this.#blocks.push(block);
    this.element.append(block.element);
    return block;
  }

  /** Set the estimated height of the last block, which the browser uses until it lays out the block. */
  #estimate() {
    const block = this.#blocks.at(-1);
    if (!block) return;
    const lines = Math.max(1, block.lines, Math.ceil(block.weight / LINE_LENGTH));
    block.element.style.setProperty("--lines", lines);
  }
}
