// Labels as buttons, each with its key; a filter above them where there are many.

import { h } from "../dom.js";

/** @typedef {import("../types.js").LabelOption} LabelOption */

const FILTER_FROM = 20;

/**
 * How much room a button takes: a character alone, a few beside their key, a word, more.
 * @param {LabelOption[]} labels
 */
function widthClass(labels) {
  const longest = Math.max(...labels.map(({ label }) => [...label].length));
  if (longest <= 1 && labels.every(({ label, key }) => key === "" || key === label)) return "single";
  if (longest <= 3) return "short";
  return longest <= 16 ? "medium" : "long";
}

/**
 * @param {LabelOption[]} labels with their keys
 * @param {(label: string) => void} choose
 * @param {boolean} toggles whether several can be on at once
 * @returns {{element: HTMLElement, buttons: Map<string, HTMLButtonElement>, filter: HTMLInputElement | null}}
 */
export function choices(labels, choose, toggles = false) {
  /** @type {Map<string, HTMLButtonElement>} */
  const buttons = new Map();
  for (const { label, key } of labels) {
    const same = label === key;
    buttons.set(label, h("button", {
      type: "button", class: same ? "choice same" : "choice", "data-label": label, "aria-pressed": toggles ? "false" : null,
      "aria-keyshortcuts": key || null, title: label, onclick: () => choose(label),
    }, key !== "" && !same && h("kbd", {}, key), h("span", { class: "choice-label", dir: "auto" }, label)));
  }
  const grid = h("div", { class: `choices ${widthClass(labels)}`, role: "group", "aria-label": "Labels" }, ...buttons.values());
  if (labels.length < FILTER_FROM) return { element: grid, buttons, filter: null };
  const filter = filterField(labels, buttons, choose);
  return { element: h("div", { class: "filtered" }, filter, grid), buttons, filter };
}

/**
 * @param {LabelOption[]} labels
 * @param {Map<string, HTMLButtonElement>} buttons
 * @param {(label: string) => void} choose
 */
function filterField(labels, buttons, choose) {
  const shown = () => {
    const wanted = filter.value.trim().toLowerCase();
    return labels.filter(({ label }) => label.toLowerCase().includes(wanted)).map(({ label }) => label);
  };
  const filter = h("input", {
    type: "search", class: "field filter", placeholder: `Filter ${labels.length} labels, Enter takes the first`, "aria-label": "Filter the labels", autocomplete: "off",
    oninput: () => {
      const kept = new Set(shown());
      for (const [label, button] of buttons) button.hidden = !kept.has(label);
    },
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || event.isComposing || filter.value.trim() === "") return;
      event.preventDefault();
      event.stopPropagation();
      const [first] = shown();
      if (first === undefined) return;
      filter.value = "";
      filter.dispatchEvent(new Event("input"));
      choose(first);
    },
  });
  return filter;
}
