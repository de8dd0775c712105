// Split the text of a terminal into runs of one appearance.

const COLORS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
// An escape sequence, a control character, or a character that changes the direction of other text.
const SPECIAL = new RegExp(
  "\\x1b\\[([0-9;:]*)m" + // colours and weight
    "|\\x1b\\[[0-?]*[ -/]*[@-~]" + // other control sequences
    "|\\x1b[\\]PX^_][^\\x07\\x1b]{0,4096}(?:\\x07|\\x1b\\\\)" + // titles and links
    "|\\x1b[ -/]*[0-Z\\\\-~]?" +
    "|\\r\\n?" +
    "|[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2028\\u2029\\u2066-\\u2069]",
  "g",
);
const UNFINISHED = /\x1b(?:\[[0-?]{0,64}[ -/]{0,8}|[\]PX^_][^\x07\x1b]{0,4096})?$|\r$/;

/** Reads one stream of a program. Escape sequences may be split between two chunks. */
export class AnsiReader {
  #rest = "";
  #style = { color: "", bold: false, dim: false, italic: false, underline: false };
  #class = "";

  /** Return the runs of a chunk: `{text, style}`, `{mark}` for control characters, made visible, `{restart}` for a carriage
   * return, after which the line is written again. */
  read(chunk) {
    let text = this.#rest + chunk;
    this.#rest = UNFINISHED.exec(text)?.[0] ?? "";
    text = text.slice(0, text.length - this.#rest.length);
    const runs = [];
    let start = 0;
    const add = (end) => end > start && runs.push({ text: text.slice(start, end), style: this.#class });
    for (const match of text.matchAll(SPECIAL)) {
      add(match.index);
      start = match.index + match[0].length;
      const found = match[0];
      if (match[1] !== undefined) this.#apply(match[1]);
      else if (found === "\r\n") runs.push({ text: "\n", style: this.#class });
      else if (found === "\r") runs.push({ restart: true });
      else if (found[0] !== "\x1b") addMark(runs, nameOf(found.codePointAt(0)));
    }
    add(text.length);
    return runs;
  }

  /** Forget the appearance, after a part of the stream was left out. */
  reset() {
    this.#rest = "";
    this.#apply("0");
  }

  #apply(parameters) {
    const numbers = parameters.split(/[;:]/).map(Number);
    const style = this.#style;
    for (let i = 0; i < numbers.length; i += 1) {
      const n = numbers[i];
      if (n === 0) Object.assign(style, { color: "", bold: false, dim: false, italic: false, underline: false });
      else if (n === 1) style.bold = true;
      else if (n === 2) style.dim = true;
      else if (n === 3) style.italic = true;
      else if (n === 4) style.underline = true;
      else if (n === 22) style.bold = style.dim = false;
      else if (n === 23) style.italic = false;
      else if (n === 24) style.underline = false;
      else if (n >= 30 && n <= 37) style.color = COLORS[n - 30];
      else if (n >= 90 && n <= 97) style.color = COLORS[n - 90];
      else if (n === 39) style.color = "";
      else if (n === 38 || n === 48) {
        const isIndexed = numbers[i + 1] === 5;
        if (n === 38) style.color = isIndexed && numbers[i + 2] < 16 ? COLORS[numbers[i + 2] % 8] : "";
        i += isIndexed ? 2 : 4;
      }
    }
    const names = ["bold", "dim", "italic", "underline"].filter((name) => style[name]);
    this.#class = [style.color, ...names].filter(Boolean).map((name) => `ansi-${name}`).join(" ");
  }
}

function addMark(runs, name) {
  const last = runs.at(-1);
  if (last?.mark) last.mark += name;
  else runs.push({ mark: name });
}

function nameOf(code) {
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  return code === 0x7f ? "\u2421" : `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}
