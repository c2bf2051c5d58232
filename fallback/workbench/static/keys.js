// Which key chooses which label, and which does what besides.

/** @typedef {import("./types.js").LabelOption} LabelOption */
/** @typedef {"undo" | "skip" | "flag" | "back" | "help"} Action */

/** @type {Record<Action, string>} */
const LETTERS = { undo: "u", skip: "s", flag: "f", back: "p", help: "h" };

/**
 * Gives each label its key. The task's own keys win; where it names none, labels of one character are their own key,
 * and else the first nine get 1 to 9.
 * @param {LabelOption[]} labels
 * @returns {LabelOption[]}
 */
export function withKeys(labels) {
  if (labels.some((option) => option.key !== "")) return labels;
  if (labels.every((option) => [...option.label].length === 1 && option.label !== "?")) {
    return labels.map(({ label }) => ({ label, key: label }));
  }
  return labels.map(({ label }, index) => ({ label, key: index < 9 ? String(index + 1) : "" }));
}

/**
 * Finds the label that a key chooses; the case counts only where two labels differ by it.
 * @param {LabelOption[]} labels
 * @param {string} key KeyboardEvent.key
 * @returns {string | null}
 */
export function labelOfKey(labels, key) {
  const exact = labels.find((option) => option.key !== "" && option.key === key);
  if (exact !== undefined) return exact.label;
  const folded = labels.filter((option) => option.key !== "" && option.key.toLowerCase() === key.toLowerCase());
  return folded.length === 1 ? folded[0].label : null;
}

/**
 * Gives each action its key. A label's key wins: the action then has the capital letter, with Shift, and where that is
 * a label's too, none but its button.
 * @param {LabelOption[]} labels with their keys
 * @returns {Map<Action, string>}
 */
export function actionKeys(labels) {
  const taken = new Set(labels.map(({ key }) => key));
  const free = (/** @type {string} */ letter) => {
    if (!taken.has(letter) && !taken.has(letter.toUpperCase())) return letter;
    return taken.has(letter.toUpperCase()) ? "" : letter.toUpperCase();
  };
  return new Map(/** @type {Action[]} */ (Object.keys(LETTERS)).map((action) => [action, free(LETTERS[action])]));
}

/**
 * Finds the action of a key; with Caps Lock a free letter means the same.
 * @param {Map<Action, string>} keys
 * @param {string} key KeyboardEvent.key
 * @returns {Action | null}
 */
export function actionOfKey(keys, key) {
  const found = [...keys].find(([, own]) => own === key) ?? [...keys].find(([, own]) => own !== "" && own === key.toLowerCase());
  return found?.[0] ?? null;
}

/**
 * Whether a key was pressed for the page itself: once, alone, and not into a text.
 * @param {KeyboardEvent} event
 */
export function meant(event) {
  return !event.repeat && !event.ctrlKey && !event.metaKey && !event.altKey && !takesText(event.target);
}

/**
 * @param {string} key
 * @returns {string} as it is shown
 */
export function keyName(key) {
  return key !== key.toLowerCase() ? `Shift ${key}` : key;
}

/**
 * Whether an element takes typed characters itself, so that the page's keys must leave them alone.
 * @param {EventTarget | null} target
 */
export function takesText(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement) return true;
  return target instanceof HTMLInputElement && !["checkbox", "radio", "button", "submit"].includes(target.type);
}
