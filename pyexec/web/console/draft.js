// The program in the editor, with its options: kept in the browser, and turned into a request.

const DRAFT = "pyexec.draft";
const SOURCES = "pyexec.sources";
const CELLS = "pyexec.cells";
const CELLS_MAX = 20; // sessions
const SOURCES_MAX = 200;
const SOURCE_CHARACTERS_MAX = 64 * 1024;
const SAVE_MS = 300;
const CHARACTERS_MAX = 1024 * 1024; // of all sources; browsers keep 5 MiB for a site

const EXAMPLE = `import sys

print("Hello from", sys.version.split()[0])
for n in range(1, 6):
    print(n, "squared is", n * n)
`;

export const emptyDraft = () => ({
  code: EXAMPLE, requirements: "", stdin: "", args: "", env: "", files: "", commands: "", image: "",
  network: false, lastExpression: true, limits: {},
});

export function loadDraft() {
  return { ...emptyDraft(), ...read(DRAFT, {}) };
}

export function saveDraft(draft) {
  write(DRAFT, draft);
}

/** Save what the user writes, soon after each change and before the page is left. A page without changes saves nothing,
 * so that it does not overwrite what was written in another tab. */
export class Autosave {
  #save;
  #timer = null;
  #rest = () => this.#timer && this.now();

  constructor(save) {
    this.#save = save;
    addEventListener("pagehide", this.#rest);
  }

  soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#rest, SAVE_MS);
  }

  now() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#save();
  }

  stop() {
    this.#rest();
    removeEventListener("pagehide", this.#rest);
  }
}

/** Remember what an execution ran, and in which session: the server may not keep it. */
export function rememberSource(id, draft, session = null) {
  if (JSON.stringify(draft).length > SOURCE_CHARACTERS_MAX) return;
  const others = read(SOURCES, []).filter((entry) => entry.id !== id);
  const entries = [{ id, session, draft }, ...others].slice(0, SOURCES_MAX);
  while (JSON.stringify(entries).length > CHARACTERS_MAX) entries.pop();
  write(SOURCES, entries);
}

/** Return the cells of a session that were run from this browser, oldest first: `{id, draft}`. */
export function sourcesOf(session) {
  return read(SOURCES, []).filter((entry) => entry.session === session).reverse();
}

/** Return the cell of a session that was written but not run. */
export function loadCell(session) {
  return read(CELLS, []).find((entry) => entry.session === session)?.code ?? "";
}

export function saveCell(session, code) {
  const others = read(CELLS, []).filter((entry) => entry.session !== session);
  write(CELLS, [...(code.trim() ? [{ session, code }] : []), ...others].slice(0, CELLS_MAX));
}

export function sourceOf(id) {
  return read(SOURCES, []).find((entry) => entry.id === id)?.draft ?? null;
}

/** Return the body of `POST /api/v1/eval`. Options that were left alone are left out. */
export function requestOf(draft) {
  const limits = Object.entries(draft.limits).filter(([, text]) => text.trim()).map(([name, text]) => [name, numberOf(text)]);
  const config = { ...Object.fromEntries(limits), ...(draft.network ? { network_disabled: false } : {}) };
  const body = {
    code: draft.code,
    eval_last_expr: draft.lastExpression,
    docker_image: draft.image.trim(),
    requirements_txt: draft.requirements.trim() && draft.requirements,
    stdin: draft.stdin,
    script_args: lines(draft.args),
    env_vars: lines(draft.env),
    output_files: lines(draft.files),
    pre_commands: lines(draft.commands),
    config,
  };
  return Object.fromEntries(Object.entries(body).filter(([name, value]) => name === "code" || !isEmpty(value)));
}

/** Return the number that a text stands for; any other text as it is, so that the server rejects it. */
function numberOf(text) {
  const number = Number(text);
  return Number.isFinite(number) ? number : text;
}

function isEmpty(value) {
  return value === "" || value === false || (typeof value === "object" && Object.keys(value).length === 0);
}

function lines(text) {
  return text.split("\n").map((line) => line.replace(/\r$/, "")).filter((line) => line !== "");
}

function read(key, missing) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? missing;
  } catch {
    return missing;
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // The storage is full or switched off: the page works, but forgets.
  }
}
