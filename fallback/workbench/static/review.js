// The item under review: what is asked, what is looked at, how to answer.

import { actionsRow, flagNote, sayFlagged } from "./actions.js";
import { answerForm } from "./answers/form.js";
import { h } from "./dom.js";
import { actionKeys, actionOfKey, takesText, withKeys } from "./keys.js";
import { attributesView, subjectView } from "./subject.js";
import { answerText, sure, thumbOf } from "./verdict.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Lease} Lease */
/** @typedef {import("./keys.js").Action} Action */
/**
 * @typedef {object} Listener
 * @property {(answer: Answer, comment: string, mark: import("./verdict.js").Mark) => void} answered
 * @property {(draft: import("./drafts.js").Draft) => void} drafted
 * @property {(action: Action) => void} act undo, skip, flag, put back, help
 */

// A key that bounces would answer the next item unseen; one that opens a dialog is stopped by that.
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
    this.labels = withKeys(lease.task.labels);
    this.keys = actionKeys(this.labels);
    this.subject = subjectView(lease.subject, lease.deferral.replace(/[^\w-]+/gu, "_"));
    this.form = answerForm(lease.task, {
      subject: this.subject,
      begun: draft.answer,
      was: draft.was,
      answer: (answer) => this.#answer(answer),
      draft: (answer) => this.#drafted({ answer }),
    });
    this.note = this.#noteField();
    this.kept = h("span", { class: "muted kept", "aria-hidden": "true" });
    this.flag = flagNote("You can still answer.");
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
    // Who opens the note means to type: no character there answers, on whatever part of it the focus is.
    if (takesText(target) || target.closest(".note") !== null) {
      if (event.key === "Escape") this.element.querySelector("h1").focus();
      // No number has a question mark in it.
      const unused = event.key === "?" && target.matches(".number") || event.key === "Enter" && target.matches(".filter:placeholder-shown");
      if (!unused) return;
    }
    const character = event.key.length === 1;
    if (character && !keysOn) return;
    if (event.key === " " || event.key === "Enter" && target.matches("a, summary, button:not(.choice[aria-pressed], .box-row)")) return;
    const action = actionOfKey(this.keys, event.key);
    const opens = action === "skip" || action === "flag" || action === "help";
    const now = performance.now();
    if (character && !opens && event.key === lastKey && now - lastKeyMs < SAME_KEY_MS) return;
    [lastKey, lastKeyMs] = [event.key, now];
    if (event.key === "?" && this.lease.task.cant_tell) this.#answer({ type: "cant_tell" });
    else if (event.key === "Enter" && this.#stands !== null) this.#answer(this.#stands);
    else if (action !== null) this.listener.act(action);
    else if (!this.form.key(event)) return;
    event.preventDefault();
  }

  /** The server has what was begun. */
  saved() {
    this.kept.textContent = "Draft saved";
  }

  flagged() {
    sayFlagged(this.flag);
  }

  /** The answer that was taken back, where the form has no way of its own to send it again. */
  get #stands() {
    const { was } = this.draft;
    return was?.type === "label" || was?.type === "cant_tell" ? was : null;
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
    this.kept.textContent = "";
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
        this.#aboutLine(), guidelines(task.guidelines), this.#guess(), this.#takenBack(), this.form.element,
        h("div", { class: "beside" },
          task.cant_tell && h("button", { type: "button", class: `choice cant-tell${this.draft.was?.type === "cant_tell" ? " was" : ""}`, "aria-keyshortcuts": "?", onclick: () => this.#answer({ type: "cant_tell" }) }, h("kbd", {}, "?"), "Can’t tell"),
          actionsRow(this.keys, (action) => this.listener.act(action))),
        this.flag,
        this.#noteBox()));
  }

  /** Opening it puts the cursor in it, at once: the next key is the note's. */
  #noteBox() {
    const box = h("details", { class: "note", open: this.note.value !== "" },
      h("summary", {
        onclick: (/** @type {Event} */ event) => {
          event.preventDefault();
          box.open = !box.open;
          if (box.open) this.note.focus();
        },
      }, "Add a note", this.kept), this.note);
    return box;
  }

  #takenBack() {
    const { was } = this.draft;
    if (was === undefined) return null;
    const stands = this.#stands;
    return h("div", { class: "taken-back" },
      h("p", {}, h("span", { class: "tag" }, "Taken back"), " You had answered ", h("b", { dir: "auto" }, answerText(was)), ". Correct it, or send it again."),
      stands !== null && h("button", { type: "button", class: "button again", onclick: () => this.#answer(stands) }, "Same again", h("kbd", {}, "Enter")));
  }

  #aboutLine() {
    const { reviews_done: done, reviews_wanted: wanted, tier, next_tier: next } = this.lease;
    const several = wanted > 1 || done > 0;
    if (!several && tier === "") return null;
    return h("p", { class: "muted about" },
      tier !== "" && h("span", { class: "tier", title: next === "" ? "The last tier of this queue" : `The next tier is ${next}` }, "Tier ", h("b", { dir: "auto" }, tier)),
      several && h("span", {}, `Review ${done + 1}; at least ${Math.max(wanted, done + 1)} people look at each item.`));
  }

  #guess() {
    const { prediction } = this.lease;
    if (prediction === null) return null;
    return h("p", { class: "guess" }, h("span", { class: "tag" }, "Assisted"), " The model guesses ",
      h("b", { dir: "auto" }, answerText(prediction.answer)), ` (${sure(prediction)}). `, h("span", { class: "muted" }, "Your review records that you saw this."));
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
