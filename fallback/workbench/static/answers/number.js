// A number, typed; Enter answers.

import { h } from "../dom.js";

/**
 * Reads a finite number; a comma is taken as the decimal sign where there is one and no point.
 * @param {string} text
 * @returns {number | null}
 */
export function readNumber(text) {
  const trimmed = text.trim().replace(/^([^.,]*),([^.,]*)$/u, "$1.$2").replace(/^\u2212/u, "-");
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/iu.test(trimmed)) return null;
  const number = Number(trimmed);
  return Number.isFinite(number) ? number : null;
}

/**
 * @param {import("../types.js").Task} _task
 * @param {import("./form.js").Wants} wants
 * @returns {import("./form.js").Form}
 */
export function numberForm(_task, wants) {
  const fault = h("p", { class: "fault", id: "number-fault", role: "alert" });
  const field = h("input", {
    class: "field number", type: "text", inputMode: "decimal", autocomplete: "off", spellcheck: false, "aria-describedby": "number-fault",
    "aria-label": "Your number", placeholder: "0", value: typeof wants.begun === "string" ? wants.begun : "",
    oninput: () => {
      wants.draft(field.value);
      fault.textContent = "";
      field.removeAttribute("aria-invalid");
    },
  });
  const form = h("form", {
    class: "form", noValidate: true,
    onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      const number = readNumber(field.value);
      if (number !== null) return wants.answer({ type: "number", number });
      fault.textContent = field.value.trim() === "" ? "Type a number first." : "This is not a number: digits, and a point or a comma before the decimals.";
      field.setAttribute("aria-invalid", "true");
      field.focus();
    },
  }, field, fault, h("button", { class: "primary wide" }, "Answer", h("kbd", {}, "Enter")));
  return { element: form, focus: field, key: () => false };
}
