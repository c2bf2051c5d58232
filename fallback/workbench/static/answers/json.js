// A JSON text, typed; Ctrl+Enter answers. What does not parse is not sent, and the page says where it broke.

import { h } from "../dom.js";

const CHARS_MAX = 65_536;

/**
 * @param {string} text
 * @returns {string} what is wrong, or nothing
 */
export function jsonFault(text) {
  if (text.trim() === "") return "Type a JSON value first.";
  if ([...text].length > CHARS_MAX) return `At most ${CHARS_MAX.toLocaleString()} characters.`;
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `This is not JSON yet: ${error instanceof Error ? error.message : "it does not parse"}`;
  }
}

/**
 * @param {import("../types.js").Task} _task
 * @param {import("./form.js").Wants} wants
 * @returns {import("./form.js").Form}
 */
export function jsonForm(_task, wants) {
  const fault = h("p", { class: "fault", id: "json-fault", role: "alert" });
  const send = () => {
    fault.textContent = jsonFault(field.value);
    if (fault.textContent === "") return wants.answer({ type: "json", json: field.value });
    field.setAttribute("aria-invalid", "true");
    field.focus();
  };
  const field = h("textarea", {
    class: "field code", rows: 10, spellcheck: false, autocomplete: "off", autocapitalize: "off", "aria-label": "Your answer as JSON",
    "aria-describedby": "json-fault", placeholder: '{"field": "value"}', value: typeof wants.begun === "string" ? wants.begun : "",
    oninput: () => {
      wants.draft(field.value);
      fault.textContent = "";
      field.removeAttribute("aria-invalid");
    },
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      send();
    },
  });
  const button = h("button", { type: "button", class: "primary wide", onclick: send }, "Answer", h("kbd", {}, "Ctrl Enter"));
  return { element: h("div", { class: "form" }, field, fault, button), focus: field, key: () => false };
}
