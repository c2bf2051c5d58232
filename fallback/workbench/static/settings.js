// What this browser remembers besides who sits here, and the dialog behind the reviewer's name: whether single keys are
// on, what is proved of the models, and leaving.

import { openCertificates } from "./certificates.js";
import { h } from "./dom.js";

const KEYS_OFF = "demur.keys.off";
const QUEUE = "demur.queue";

/** @returns {string} the queue that was open last */
export function lastQueue() {
  try {
    return localStorage.getItem(QUEUE) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} name */
export function rememberQueue(name) {
  try { localStorage.setItem(QUEUE, name); } catch { /* Then it is asked again. */ }
}

export function keysOn() {
  try {
    return localStorage.getItem(KEYS_OFF) !== "yes";
  } catch {
    return true;
  }
}

/**
 * @param {string} name
 * @param {() => void} leave
 * @param {() => void} help
 * @param {import("./api.js").Api} api
 */
export function openSettings(name, leave, help, api) {
  const toggle = h("input", {
    type: "checkbox", id: "keys-on", checked: keysOn(),
    onchange: () => {
      try { localStorage.setItem(KEYS_OFF, toggle.checked ? "no" : "yes"); } catch { /* Then it holds until the reload. */ }
    },
  });
  const dialog = h("dialog", { class: "settings", "aria-labelledby": "settings-title", onclose: () => dialog.remove() },
    h("h2", { id: "settings-title" }, name),
    h("label", { class: "switch", for: "keys-on" }, toggle, "Answer by single keys"),
    h("button", { type: "button", class: "button wide", onclick: () => { dialog.close(); help(); } }, "All keys"),
    h("button", { type: "button", class: "button wide", onclick: () => { dialog.close(); void openCertificates(api); } }, "What is proved"),
    h("div", { class: "actions" },
      h("button", { type: "button", class: "quiet", onclick: () => { dialog.close(); leave(); } }, "Not you? Leave"),
      h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close")));
  document.body.append(dialog);
  dialog.showModal();
}
