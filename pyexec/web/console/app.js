// The pages of the console, by the fragment of the URL: a reload keeps the page.

import { h, problem } from "./dom.js";

const PAGES = [
  [/^\/run$/, () => import("./run.js")],
  [/^\/executions$/, () => import("./executions.js")],
  [/^\/executions\/(exe_[0-9a-f]{32})$/, () => import("./execution.js")],
  [/^\/sessions$/, () => import("./sessions.js")],
  [/^\/sessions\/([\w-]+)$/, () => import("./session.js")],
  [/^\/cluster$/, () => import("./cluster.js")],
];
const main = document.getElementById("main");
let leave = () => {};
let shown = 0;

async function show() {
  const path = location.hash.slice(1) || "/run";
  const [match, load] = PAGES.map(([pattern, load]) => [pattern.exec(path), load]).find(([match]) => match) ?? [null];
  leave();
  leave = () => {};
  const turn = (shown += 1);
  for (const link of document.querySelectorAll("header nav a")) {
    const isCurrent = `${path}/`.startsWith(`${link.hash.slice(1)}/`);
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!match) {
    main.replaceChildren(h("h1", { tabindex: "-1" }, "No such page"), h("p", {}, h("a", { href: "#/run" }, "Run a program")));
    return;
  }
  try {
    const page = await load();
    if (turn !== shown) return;
    main.replaceChildren();
    document.title = `${page.title} · python-executor`;
    leave = page.mount(main, ...match.slice(1)) ?? (() => {});
    if (turn > 1) main.querySelector("h1")?.focus({ preventScroll: true });
  } catch (error) {
    main.replaceChildren(problem(error));
  }
  scrollTo(0, 0);
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment names the page
  main.focus();
});
addEventListener("hashchange", show);
show();
