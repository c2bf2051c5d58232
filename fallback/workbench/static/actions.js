// What can be done with an item besides answering it, however it is shown.

import { announce, h } from "./dom.js";
import { keyName } from "./keys.js";

/** @typedef {import("./keys.js").Action} Action */

/**
 * @param {Map<Action, string>} keys
 * @param {(action: Action) => void} act
 * @returns {HTMLElement}
 */
export function actionsRow(keys, act) {
  const button = (/** @type {Action} */ action, /** @type {string} */ name, /** @type {string} */ title) => {
    const key = keys.get(action) ?? "";
    return h("button", {
      type: "button", class: "quiet action", title, "data-action": action, "aria-keyshortcuts": key === "" ? null : keyName(key).replace(" ", "+"), onclick: () => act(action),
    }, name, key !== "" && h("kbd", {}, keyName(key)));
  };
  return h("div", { class: "actions-row", role: "group", "aria-label": "Besides answering" },
    button("skip", "Skip", "Leave this item to somebody else and say why"),
    button("flag", "Flag", "Tell those who run this queue about this item"),
    button("back", "Put back", "Give this item back for now"));
}

/**
 * @param {string} more
 * @returns {HTMLElement} shown by `sayFlagged`
 */
export function flagNote(more) {
  return h("p", { class: "flagged", hidden: true }, h("span", { class: "tag" }, "Flagged"), ` Those who run this queue are told. ${more}`);
}

/** @param {HTMLElement} note */
export function sayFlagged(note) {
  note.hidden = false;
  announce(note.textContent ?? "");
}
