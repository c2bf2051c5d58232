// What a person looks at. The server says which of four views fits; content is shown as pixels or as text and as
// nothing else, so that no subject can bring markup, script or styles into the page.

import { h } from "./dom.js";
import { jsonView, readJson } from "./json-view.js";

/** @typedef {import("./types.js").SubjectJson} SubjectJson */
/** @typedef {{element: HTMLElement, image: HTMLImageElement | null, frame: HTMLElement | null, close: () => void}} SubjectView */

const IMAGE_TYPES = new Set(["image/png", "image/jpeg"]);
/** @type {Record<string, string>} */
const MISSING = { erased: "The content was erased.", lost: "The content is gone." };
const TEXT_CHARS_SHOWN_MAX = 500_000;
// Images up to this many pixels a side are icons, digits, thumbnails: their pixels are shown as squares.
const PIXELATED_MAX = 256;
// A tiny image blown up to the whole place is squares, not a shape: people read it better smaller. In CSS pixels.
const PIXELATED_SHOWN_MAX = 320;

/**
 * @param {SubjectJson} subject
 * @param {string} name what a download is called
 * @returns {SubjectView}
 */
export function subjectView(subject, name) {
  const missing = MISSING[subject.state ?? ""];
  if (missing) return { element: h("div", { class: "subject-file" }, h("p", { class: "missing" }, missing), h("p", { class: "muted" }, "Answer only if what is left is enough; else skip it, or say that you can’t tell.")), image: null, frame: null, close: () => {} };
  const bytes = Uint8Array.from(atob(subject.content), (char) => char.charCodeAt(0));
  if (subject.view === "image" && IMAGE_TYPES.has(subject.media_type)) return imageView(bytes, subject, name);
  const file = fileOf(bytes, name);
  if (subject.view === "text" || subject.view === "json") {
    return { element: textView(bytes, subject, file.link), image: null, frame: null, close: file.close };
  }
  return { element: fileView(bytes, subject, file.link), image: null, frame: null, close: file.close };
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {string} name
 */
function fileOf(bytes, name) {
  const url = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  return { link: h("a", { class: "button", href: url, download: `${name}.bin` }, "Download"), close: () => URL.revokeObjectURL(url) };
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {SubjectJson} subject
 * @param {string} name
 * @returns {SubjectView}
 */
function imageView(bytes, subject, name) {
  const url = URL.createObjectURL(new Blob([bytes], { type: subject.media_type }));
  const image = h("img", { class: "subject-image", alt: "The item to look at", draggable: false });
  const frame = h("div", { class: "frame" }, image);
  const zoom = h("button", { type: "button", class: "quiet zoom", hidden: true, "aria-pressed": "false" }, "Actual size");
  const element = h("div", { class: "subject-box" }, h("div", { class: "scroller" }, frame), zoom);
  const fit = () => fitImage(image, element.firstElementChild, zoom);
  const watcher = new ResizeObserver(fit);
  zoom.addEventListener("click", () => {
    zoom.setAttribute("aria-pressed", String(zoom.getAttribute("aria-pressed") !== "true"));
    fit();
  });
  image.addEventListener("load", () => {
    image.alt = `The item to look at, an image of ${image.naturalWidth} by ${image.naturalHeight} pixels`;
    watcher.observe(element);
    fit();
  });
  const file = fileOf(bytes, name);
  image.addEventListener("error", () => {
    element.replaceChildren(fileView(bytes, subject, file.link, "This image is broken and cannot be shown."));
  });
  image.src = url;
  const close = () => { watcher.disconnect(); file.close(); URL.revokeObjectURL(url); };
  return { element, image, frame, close };
}

/**
 * Sizes an image to its place: small ones by whole factors, so that their pixels stay square; large ones whole.
 * @param {HTMLImageElement} image
 * @param {HTMLElement} place
 * @param {HTMLButtonElement} zoom
 */
function fitImage(image, place, zoom) {
  const { naturalWidth: width, naturalHeight: height } = image;
  if (width === 0 || height === 0) return;
  const room = Math.min(place.clientWidth / width, place.clientHeight / height);
  const small = Math.max(width, height) <= PIXELATED_MAX;
  const whole = zoom.getAttribute("aria-pressed") !== "true";
  const most = Math.max(1, Math.floor(PIXELATED_SHOWN_MAX / Math.max(width, height)));
  const scale = small && room >= 1 ? Math.min(Math.floor(room), most) : Math.min(room, 2);
  zoom.hidden = room >= 1;
  image.classList.toggle("pixelated", small);
  image.style.width = `${width * (whole ? scale : 1)}px`;
  image.style.height = `${height * (whole ? scale : 1)}px`;
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {SubjectJson} subject
 * @param {HTMLElement} link
 */
function textView(bytes, subject, link) {
  const text = new TextDecoder().decode(bytes);
  const tree = subject.view === "json" ? readJson(text) : null;
  if (tree !== null) return h("div", { class: "subject-text", tabIndex: 0, role: "region", "aria-label": "The item, as JSON" }, jsonView(tree));
  const cut = text.length > TEXT_CHARS_SHOWN_MAX;
  return h("div", { class: "subject-text", tabIndex: 0, role: "region", "aria-label": "The item, as text" },
    h("pre", { dir: "auto" }, cut ? text.slice(0, TEXT_CHARS_SHOWN_MAX) : text),
    cut && h("p", { class: "muted" }, `The first ${TEXT_CHARS_SHOWN_MAX.toLocaleString()} of ${text.length.toLocaleString()} characters. `, link));
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {SubjectJson} subject
 * @param {HTMLElement} link
 * @param {string} [why]
 */
function fileView(bytes, subject, link, why = "This kind of content is not shown in the page.") {
  if (bytes.length === 0) return h("div", { class: "subject-file" }, h("p", {}, "This item came without anything to look at."));
  const size = bytes.length < 1024 ? `${bytes.length} bytes` : `${Math.round(bytes.length / 1024).toLocaleString()} KiB`;
  return h("div", { class: "subject-file" },
    h("p", { class: "file-type" }, subject.media_type || "unknown type", h("span", { class: "muted" }, ` · ${size}`)),
    h("p", {}, why), link);
}

/**
 * What is known of the item besides its content.
 * @param {Record<string, string>} attributes
 */
export function attributesView(attributes) {
  const names = Object.keys(attributes).sort();
  if (names.length === 0) return null;
  return h("dl", { class: "attributes" }, ...names.map((name) => h("div", {}, h("dt", {}, name), h("dd", { dir: "auto" }, attributes[name]))));
}
