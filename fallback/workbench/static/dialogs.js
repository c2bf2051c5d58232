// What a reviewer does with an item besides answering it: skip it with a reason, flag it with a comment. And the help,
// which lists every key. Each is a modal dialog: Escape leaves it as if nothing had been.

import { h } from "./dom.js";
import { keyName, takesText } from "./keys.js";
import { keysOn } from "./settings.js";

/** @typedef {import("./types.js").LabelOption} LabelOption */
/** @typedef {import("./keys.js").Action} Action */

const REASONS = ["I lack the knowledge for this", "It is broken or does not show", "The question does not fit it", "I should not see this: private or disturbing", "I am too close to it to judge"];
const REASON_CHARS_MAX = 500;
const HIGHER_KEY = "t";
const FLAG_CHARS_MAX = 2_000;
const LABELS_SHOWN_MAX = 12;

/**
 * @param {string} title
 * @param {...any} children
 * @returns {any} a dialog, not open yet
 */
function dialogOf(title, ...children) {
  const dialog = h("dialog", { class: "settings", "aria-labelledby": "dialog-title", onclose: () => dialog.remove() },
    h("h2", { id: "dialog-title", tabIndex: -1, autofocus: true }, title), ...children);
  document.body.append(dialog);
  return dialog;
}

/** @param {any} dialog */
function cancelButton(dialog) {
  return h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel", h("kbd", {}, "Esc"));
}

/**
 * @param {string} nextTier above the item's, or nothing
 * @param {(reason: string, escalate: boolean) => void} done
 */
export function openSkip(nextTier, done) {
  const pick = (/** @type {string} */ reason) => {
    if (reason === "") return field.focus();
    dialog.close();
    done(reason, higher?.checked ?? false);
  };
  const send = h("button", { class: "primary" });
  const said = () => {
    send.textContent = higher?.checked ? "Send" : "Skip";
    where.textContent = higher?.checked ? `It goes to the reviewers of the tier “${nextTier}”; you do not get it again.` : "It goes to somebody else; you do not get it again.";
  };
  const higher = nextTier === "" ? null : h("input", { type: "checkbox", id: "skip-higher", "aria-keyshortcuts": HIGHER_KEY, onchange: said });
  const where = h("p", { class: "muted", role: "status" });
  said();
  const field = h("input", { class: "field", type: "text", maxLength: REASON_CHARS_MAX, autocomplete: "off", "aria-label": "Another reason", placeholder: "Another reason" });
  const dialog = dialogOf("Skip this item: why?",
    where,
    higher !== null && h("label", { class: "switch higher", for: "skip-higher" }, higher, h("span", {}, "Send to ", h("b", { dir: "auto" }, nextTier)), h("kbd", {}, HIGHER_KEY)),
    h("div", { class: "reasons" }, ...REASONS.map((reason, index) => h("button", {
      type: "button", class: "choice", "aria-keyshortcuts": String(index + 1), onclick: () => pick(reason),
    }, h("kbd", {}, String(index + 1)), reason))),
    h("form", { class: "other-reason", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); pick(field.value.trim()); } },
      field, send));
  dialog.append(h("div", { class: "actions" }, cancelButton(dialog)));
  dialog.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const reason = REASONS[Number(event.key) - 1];
    const turns = higher !== null && event.key.toLowerCase() === HIGHER_KEY;
    if (reason === undefined && !turns || takesText(event.target) || !keysOn() || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (turns) return higher.click();
    // With the dialog gone, the page behind it would take the key for an answer.
    event.stopPropagation();
    pick(reason);
  });
  dialog.showModal();
}

/** @param {(comment: string) => void} done */
export function openFlag(done) {
  const send = () => {
    if (field.value.trim() === "") return field.focus();
    const comment = field.value.trim();
    dialog.close();
    done(comment);
  };
  const field = h("textarea", {
    class: "field", rows: 4, maxLength: FLAG_CHARS_MAX, autofocus: true, "aria-label": "What is wrong with this item", placeholder: "What is wrong with it?",
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      send();
    },
  });
  const dialog = dialogOf("Flag this item", h("p", { class: "muted" }, "Those who run this queue read what you write. The item stays with you: answer or skip it afterwards."), field);
  dialog.append(h("div", { class: "actions" }, cancelButton(dialog), h("button", { type: "button", class: "primary", onclick: send }, "Flag", h("kbd", {}, "Ctrl Enter"))));
  dialog.showModal();
  field.focus();
}

/**
 * @param {LabelOption[]} labels of the item on the page, with their keys
 * @param {string} kind of its task, or nothing
 * @param {Map<Action, string>} keys
 */
export function openHelp(labels, kind, keys) {
  const row = (/** @type {string} */ key, /** @type {string} */ meaning) => h("div", {}, h("dt", {}, key === "" ? "" : h("kbd", {}, key)), h("dd", { dir: "auto" }, meaning));
  const list = (/** @type {string} */ title, /** @type {[string, string][]} */ rows) => rows.length === 0 ? null
    : h("section", {}, h("h3", {}, title), h("dl", { class: "keys" }, ...rows.map(([key, meaning]) => row(key, meaning))));
  const dialog = dialogOf("Keys",
    h("div", { class: "help-lists" }, list("This item", itemRows(labels, kind)), list("Answers", FORM_ROWS), list("Any item", actionRows(keys))),
    !keysOn() && h("p", { class: "fault" }, "Single keys are switched off: your name at the upper right switches them on."),
    h("p", { class: "muted" }, "While you type in a field, the keys are yours; Esc leaves the field."));
  dialog.classList.add("help");
  dialog.append(h("div", { class: "actions" }, h("span"), h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close", h("kbd", {}, "Esc"))));
  dialog.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== (keys.get("help") ?? "") || event.repeat) return;
    event.stopPropagation();
    dialog.close();
  });
  dialog.showModal();
}

/** @type {[string, string][]} */
const FORM_ROWS = [["Enter", "send labels, boxes or a number"], ["Ctrl Enter", "send a JSON text or a flag"], ["Arrows", "move the chosen box; with Shift, size it"], ["Delete", "remove the chosen box"]];

/**
 * @param {LabelOption[]} labels
 * @param {string} kind
 * @returns {[string, string][]}
 */
function itemRows(labels, kind) {
  const keyed = labels.filter(({ key }) => key !== "");
  if (keyed.length === 0 || kind === "") return [];
  if (keyed.every(({ label, key }) => label === key)) return [[keyed.length > 2 ? `${keyed[0].key} … ${keyed[keyed.length - 1].key}` : keyed.map(({ key }) => key).join(" "), "the label that shows it"]];
  /** @type {[string, string][]} */
  const rows = keyed.slice(0, LABELS_SHOWN_MAX).map(({ label, key }) => [key, label]);
  return keyed.length > LABELS_SHOWN_MAX ? [...rows, ["…", "as the labels show"]] : rows;
}

/**
 * @param {Map<Action, string>} keys
 * @returns {[string, string][]}
 */
function actionRows(keys) {
  /** @type {[Action, string][]} */
  const actions = [["undo", "take your last answer back, while its time runs"], ["skip", "skip this item with a reason, or send it to the next tier"], ["flag", "flag it with a comment"], ["back", "put it back for now"], ["help", "this list"]];
  /** @type {[string, string][]} */
  const rows = actions.map(([action, meaning]) => [keyName(keys.get(action) ?? ""), (keys.get(action) ?? "") === "" ? `${meaning} (by its button: the labels use the key)` : meaning]);
  return [["?", "can’t tell"], ...rows, ["Esc", "leave a text field, cancel a dialog"]];
}
