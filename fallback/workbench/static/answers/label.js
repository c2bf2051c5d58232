// One label: pressing its key, or its button, answers.

import { labelOfKey, withKeys } from "../keys.js";
import { choices } from "./choices.js";

/**
 * @param {import("../types.js").Task} task
 * @param {import("./form.js").Wants} wants
 * @returns {import("./form.js").Form}
 */
export function labelForm(task, wants) {
  const labels = withKeys(task.labels);
  const choose = (/** @type {string} */ label) => wants.answer({ type: "label", label });
  const { element, buttons, filter } = choices(labels, choose);
  if (wants.was?.type === "label") buttons.get(wants.was.label)?.classList.add("was");
  return {
    element,
    focus: filter,
    key(event) {
      const label = labelOfKey(labels, event.key);
      if (label !== null) choose(label);
      return label !== null;
    },
  };
}
