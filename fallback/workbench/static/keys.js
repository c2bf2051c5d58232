// Which key chooses which label.

/** @typedef {import("./types.js").LabelOption} LabelOption */

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
 * Whether an element takes typed characters itself, so that the page's keys must leave them alone.
 * @param {EventTarget | null} target
 */
export function takesText(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement) return true;
  return target instanceof HTMLInputElement && !["checkbox", "radio", "button", "submit"].includes(target.type);
}
