// The last event of an execution repeats its whole output. Parsing megabytes of JSON would block the page.

const OUTPUT = /"(?:stdout|stderr)": "/g;
const START_MAX = '"stdout": "'.length;
const [QUOTE, BACKSLASH] = [0x22, 0x5c];

/** Removes the values of `stdout` and `stderr` from a JSON document that arrives in pieces. Inside a JSON string, the
 * quotes of these names would have backslashes, so no text of a program can look like them. */
export class OutputFilter {
  #inOutput = false;
  #escaped = false;
  #tail = ""; // may be the beginning of a name

  /** Return what to keep of a piece, without the last characters. */
  keep(piece) {
    const text = this.#tail + piece;
    let [kept, at] = ["", 0];
    while (at < text.length) {
      if (this.#inOutput) {
        at = this.#endOfString(text, at);
        continue;
      }
      OUTPUT.lastIndex = at;
      const found = OUTPUT.exec(text);
      if (!found) {
        const end = Math.max(at, text.length - START_MAX);
        this.#tail = text.slice(end);
        return kept + text.slice(at, end);
      }
      kept += text.slice(at, OUTPUT.lastIndex);
      at = OUTPUT.lastIndex;
      this.#inOutput = true;
    }
    this.#tail = "";
    return kept;
  }

  /** Return the last characters. */
  end() {
    const tail = this.#tail;
    this.#tail = "";
    return tail;
  }

  /** Return the index of the quote that ends the string, or the end of the text. */
  #endOfString(text, start) {
    let at = start;
    for (; at < text.length; at += 1) {
      const code = text.charCodeAt(at);
      if (this.#escaped) this.#escaped = false;
      else if (code === BACKSLASH) this.#escaped = true;
      else if (code === QUOTE) {
        this.#inOutput = false;
        break;
      }
    }
    return at;
  }
}
