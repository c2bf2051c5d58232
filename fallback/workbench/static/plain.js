// The item under review, and what stands in its place where this page fails to show it: whatever somebody parked, whoever
// reviews can leave it to others and go on.

import { actionsRow, flagNote, sayFlagged } from "./actions.js";
import { h } from "./dom.js";
import { actionKeys, actionOfKey, meant } from "./keys.js";
import { Review } from "./review.js";

/** @typedef {import("./types.js").Lease} Lease */
/** @typedef {import("./review.js").Listener} Listener */

/**
 * Shows an item as it is to be answered, or plainly where that fails.
 * @param {Lease} lease
 * @param {import("./drafts.js").Draft} draft
 * @param {Listener} listener
 */
export function itemView(lease, draft, listener) {
  try {
    return new Review(lease, draft, listener);
  } catch (caught) {
    return new Plain(lease, String(caught), listener);
  }
}

/** Reads as a Review, and asks nothing of the item that could fail again. */
export class Plain {
  /**
   * @param {Lease} lease
   * @param {string} why
   * @param {Listener} listener
   */
  constructor(lease, why, listener) {
    this.lease = lease;
    this.listener = listener;
    this.labels = [];
    this.keys = actionKeys([]);
    this.flag = flagNote("");
    this.element = h("article", { class: "review plain", "data-deferral": lease.deferral },
      h("section", { class: "stage", "aria-label": "The item" }, h("div", { class: "subject-file" }, h("p", { class: "missing" }, "This page cannot show this item."), h("p", { class: "muted", dir: "auto" }, why))),
      h("section", { class: "panel", "aria-label": "What you can do" },
        h("h1", { tabIndex: -1 }, "Leave it to somebody else"),
        h("p", {}, "Skip it to say why, or put it back for now; flag it, and those who run this queue are told."),
        h("div", { class: "beside" }, actionsRow(this.keys, (action) => listener.act(action))),
        this.flag));
  }

  /**
   * @param {KeyboardEvent} event
   * @param {boolean} keysOn
   */
  key(event, keysOn) {
    const action = keysOn && meant(event) ? actionOfKey(this.keys, event.key) : null;
    if (action === null) return;
    event.preventDefault();
    this.listener.act(action);
  }

  flagged() {
    sayFlagged(this.flag);
  }

  saved() { /* Nothing is begun here. */ }

  close() { /* Nothing is open here. */ }

  focus() {
    this.element.querySelector("h1").focus({ preventScroll: true });
  }
}
