// Several labels: keys and buttons toggle, Enter answers; none at all is an answer too.

import { h } from "../dom.js";
import { labelOfKey, withKeys } from "../keys.js";
import { choices } from "./choices.js";

/**
 * @param {import("../types.js").Task} task
 * @param {import("./form.js").Wants} wants
 * @returns {import("./form.js").Form}
 */
export function labelsForm(task, wants) {
  const labels = withKeys(task.labels);
  /** @type {Set<string>} */
  const on = new Set(Array.isArray(wants.begun) ? wants.begun.filter((label) => labels.some((option) => option.label === label)) : []);
  const send = () => wants.answer({ type: "labels", labels: [...on].sort() });
  const submit = h("button", { type: "button", class: "primary wide", onclick: send });
  const show = () => {
    for (const [label, button] of buttons) button.setAttribute("aria-pressed", String(on.has(label)));
    submit.replaceChildren(on.size === 0 ? "None of these" : `Answer with ${on.size === 1 ? "1 label" : `${on.size} labels`}`, h("kbd", {}, "Enter"));
  };
  const toggle = (/** @type {string} */ label) => {
    if (!on.delete(label)) on.add(label);
    wants.draft([...on]);
    show();
  };
  const { element, buttons, filter } = choices(labels, toggle, true);
  show();
  return {
    element: h("div", { class: "form" }, element, submit),
    focus: filter,
    key(event) {
      if (event.key === "Enter") {
        send();
        return true;
      }
      const label = labelOfKey(labels, event.key);
      if (label !== null) toggle(label);
      return label !== null;
    },
  };
}
