// The item under review: what is asked, what is looked at, how to answer.

import { answerForm } from "./answers/form.js";
import { h } from "./dom.js";
import { takesText } from "./keys.js";
import { attributesView, subjectView } from "./subject.js";
import { answerText, percent, thumbOf } from "./verdict.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Lease} Lease */
/**
 * @typedef {object} Listener
 * @property {(answer: Answer, comment: string, mark: import("./verdict.js").Mark) => void} answered
 * @property {(draft: import("./drafts.js").Draft) => void} drafted
 * @property {() => void} putBack
 */

// A key that bounces would answer the next item unseen.
const SAME_KEY_MS = 150;
const COMMENT_CHARS_MAX = 10_000;
const FOLDED = "demur.guidelines.folded";

let lastKey = "";
let lastKeyMs = 0;

export class Review {
  #answered = false;

  /**
   * @param {Lease} lease
   * @param {import("./drafts.js").Draft} draft
   * @param {Listener} listener
   */
  constructor(lease, draft, listener) {
    this.lease = lease;
    this.listener = listener;
    this.draft = draft;
    this.subject = subjectView(lease.subject, lease.deferral.replace(/[^\w-]+/gu, "_"));
    this.form = answerForm(lease.task, {
      subject: this.subject,
      begun: draft.answer,
      answer: (answer) => this.#answer(answer),
      draft: (answer) => this.#drafted({ answer }),
    });
    this.note = this.#noteField();
    this.element = this.#layout();
    // The second click of a double click falls on the next item.
    this.element.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const target = /** @type {HTMLElement} */ (event.target);
      if (event.detail > 1 && target.closest(".choice:not([aria-pressed])") !== null) event.stopPropagation();
    }, { capture: true });
  }

  /**
   * @param {KeyboardEvent} event
   * @param {boolean} keysOn whether single characters answer
   */
  key(event, keysOn) {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (takesText(target)) {
      if (event.key === "Escape") this.element.querySelector("h1").focus();
      // No number has a question mark in it.
      const unused = event.key === "?" && target.matches(".number") || event.key === "Enter" && target.matches(".filter:placeholder-shown");
      if (!unused) return;
    }
    const character = event.key.length === 1;
    if (character && !keysOn) return;
    if (event.key === " " || event.key === "Enter" && target.matches("a, summary, button:not(.choice[aria-pressed], .box-row)")) return;
    const now = performance.now();
    if (character && event.key === lastKey && now - lastKeyMs < SAME_KEY_MS) return;
    [lastKey, lastKeyMs] = [event.key, now];
    if (event.key === "?" && this.lease.task.cant_tell) this.#answer({ type: "cant_tell" });
    else if (!this.form.key(event)) return;
    event.preventDefault();
  }

  /** @param {string} label that had the focus in the item before */
  focus(label) {
    const again = label === "" ? null : [...this.element.querySelectorAll("[data-label]")].find((button) => button.dataset.label === label);
    const wanted = again ?? (matchMedia("(pointer: fine)").matches ? this.form.focus : null) ?? this.element.querySelector("h1");
    wanted?.focus({ preventScroll: true });
  }

  close() {
    this.form.close?.();
    this.subject.close();
  }

  /** @param {Answer} answer */
  #answer(answer) {
    if (this.#answered) return;
    this.#answered = true;
    this.listener.answered(answer, this.note.value.trim(), { thumb: thumbOf(this.subject.image) });
  }

  /** @param {import("./drafts.js").Draft} change */
  #drafted(change) {
    this.draft = { ...this.draft, ...change };
    this.listener.drafted(this.draft);
  }

  #noteField() {
    return h("textarea", {
      class: "field", rows: 2, maxLength: COMMENT_CHARS_MAX, value: this.draft.comment ?? "", "aria-label": "Note that goes with your answer",
      oninput: () => this.#drafted({ comment: this.note.value }),
    });
  }

  #layout() {
    const { task, subject } = this.lease;
    return h("article", { class: `review kind-${task.kind}`, "data-deferral": this.lease.deferral },
      h("section", { class: "stage", "aria-label": "The item" }, this.subject.element, attributesView(subject.attributes)),
      h("section", { class: "panel", "aria-label": "Your answer" },
        h("h1", { tabIndex: -1, dir: "auto" }, task.question),
        this.#reviewsLine(), guidelines(task.guidelines), this.#guess(), this.form.element,
        h("div", { class: "beside" },
          task.cant_tell && h("button", { type: "button", class: "choice cant-tell", "aria-keyshortcuts": "?", onclick: () => this.#answer({ type: "cant_tell" }) }, h("kbd", {}, "?"), "Can’t tell"),
          h("button", { type: "button", class: "quiet put-back", title: "Leave this item to somebody else", onclick: () => this.listener.putBack() }, "Put back")),
        h("details", { class: "note", open: this.note.value !== "" }, h("summary", {}, "Add a note"), this.note)));
  }

  #reviewsLine() {
    const { reviews_done: done, reviews_wanted: wanted } = this.lease;
    if (wanted < 2 && done === 0) return null;
    return h("p", { class: "muted" }, `Review ${done + 1}; at least ${Math.max(wanted, done + 1)} people look at each item.`);
  }

  #guess() {
    const { prediction } = this.lease;
    if (prediction === null) return null;
    return h("p", { class: "guess" }, h("span", { class: "tag" }, "Assisted"), " The model guesses ",
      h("b", { dir: "auto" }, answerText(prediction.answer)), ` (${percent(prediction.confidence)}). `, h("span", { class: "muted" }, "Your review records that you saw this."));
  }
}

/** @param {string} text */
function guidelines(text) {
  if (text.trim() === "") return null;
  const folded = () => {
    const narrow = matchMedia("(max-width: 860px)").matches ? "yes" : "no";
    try { return (localStorage.getItem(FOLDED) ?? narrow) === "yes"; } catch { return narrow === "yes"; }
  };
  return h("details", {
    class: "guidelines", open: !folded(),
  }, h("summary", {
    onclick: (/** @type {Event} */ event) => {
      const closes = /** @type {HTMLElement} */ (event.currentTarget).closest("details")?.open;
      try { localStorage.setItem(FOLDED, closes ? "yes" : "no"); } catch { /* Asked again next time. */ }
    },
  }, "Guidelines"), h("p", { class: "guidelines-text", dir: "auto" }, text));
}
