// What a program shows: pictures, tables, HTML. Nothing of it can run a script or reach this page.

import { h, save } from "./dom.js";
import { bytesOf } from "./events.js";

const IMAGES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const FORMS = ["image/svg+xml", ...IMAGES, "text/html", "text/markdown", "text/latex", "application/json", "text/plain"];
const nonce = document.querySelector("link[nonce]").nonce;

export class DisplaysView {
  #urls = [];

  constructor(heading = "h2", headingClass = null) {
    this.list = h("div", { class: "displays" });
    this.element = h("section", { hidden: true }, h(heading, { class: headingClass }, "Displays"), this.list);
  }

  clear() {
    this.#urls.forEach(URL.revokeObjectURL);
    this.#urls = [];
    this.list.replaceChildren();
    this.element.hidden = true;
  }

  add(display) {
    const data = display.data ?? {};
    const number = this.list.children.length + 1;
    const text = typeof data["text/plain"] === "string" ? data["text/plain"] : "";
    const form = FORMS.find((name) => name in data) ?? Object.keys(data)[0];
    if (!form) return;
    const shown = this.#show(form, data[form], text || `Display ${number}`);
    const saveButton = h("button", { type: "button", class: "quiet" }, "Save");
    saveButton.onclick = () => save(blobOf(form, data[form]), `display-${number}.${extensionOf(form)}`);
    this.list.append(h("figure", {}, shown, h("figcaption", {}, `${number} · ${form}`, saveButton)));
    this.element.hidden = false;
  }

  #show(form, value, label) {
    if (IMAGES.includes(form)) {
      const url = URL.createObjectURL(blobOf(form, value, form));
      this.#urls.push(url);
      return h("img", { src: url, alt: label.slice(0, 200) });
    }
    if (form === "image/svg+xml") return drawing(String(value), label);
    if (form === "text/html") return frame(withNonce(value), label);
    if (form === "application/pdf") return h("p", { class: "muted" }, "A PDF document: save it to read it.");
    return h("pre", { class: "plain", dir: "ltr" }, typeof value === "string" ? value : JSON.stringify(value, null, 2));
  }
}

/** Show HTML in a frame without scripts and without an origin. It inherits the policy of this page. */
function frame(html, label) {
  const style = `<style nonce="${nonce}">html{color-scheme:light;background:#fff;color:#111;font:14px/1.5 system-ui,sans-serif}`
    + "body{margin:12px}img,svg{max-width:100%}table{border-collapse:collapse}td,th{padding:4px 8px;text-align:right;border-bottom:1px solid #ddd}</style>";
  const element = h("iframe", { sandbox: "", title: label.slice(0, 100), referrerpolicy: "no-referrer" });
  element.srcdoc = `<!DOCTYPE html><meta charset="utf-8">${style}${html}`;
  return element;
}

/** Show SVG in such a frame. This page sets its height, because no script runs in the frame to measure the drawing. */
function drawing(svg, label) {
  const element = frame(withNonce(svg), label);
  const image = new Image();
  image.addEventListener("load", () => {
    URL.revokeObjectURL(image.src);
    if (image.naturalHeight) element.style.height = `${Math.min(image.naturalHeight, 800) + 40}px`;
  });
  image.src = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  return element;
}

/** Give the styles of a document the nonce that the policy of this page allows, and turn `style` attributes into rules.
 *
 * The frame keeps scripts from running; they are removed so that the browser does not report each of them. */
function withNonce(html) {
  const found = new DOMParser().parseFromString(String(html), "text/html");
  for (const element of found.querySelectorAll("script, base, meta, link, object, embed, iframe, frame")) element.remove();
  const rules = [];
  for (const element of found.querySelectorAll("*")) {
    for (const { name } of [...element.attributes]) if (/^on/i.test(name)) element.removeAttribute(name);
    const style = element.getAttribute("style");
    if (style === null) continue;
    element.removeAttribute("style");
    element.setAttribute("data-style", rules.length);
    rules.push(`[data-style="${rules.length}"]{${style.replaceAll(/[{}<]/g, "")}}`);
  }
  for (const element of found.querySelectorAll("style")) element.setAttribute("nonce", nonce);
  const styles = rules.length ? `<style nonce="${nonce}">${rules.join("\n")}</style>` : "";
  return styles + found.head.innerHTML + found.body.innerHTML;
}

function blobOf(form, value, type = "application/octet-stream") {
  const isText = typeof value !== "string" || form.startsWith("text/") || /json|xml|javascript/.test(form);
  if (!isText) return new Blob([bytesOf(value)], { type });
  return new Blob([typeof value === "string" ? value : JSON.stringify(value, null, 2)], { type });
}

function extensionOf(form) {
  const known = { "text/plain": "txt", "text/markdown": "md", "text/latex": "tex", "image/svg+xml": "svg", "image/jpeg": "jpg" };
  return known[form] ?? (form.split("/")[1] ?? "bin").replaceAll(/[^a-z0-9]/gi, "");
}
