// The form that fits a task's kind of answer.

import { boxesForm } from "./boxes.js";
import { jsonForm } from "./json.js";
import { labelForm } from "./label.js";
import { labelsForm } from "./labels.js";
import { numberForm } from "./number.js";

/** @typedef {import("../types.js").Answer} Answer */
/** @typedef {import("../types.js").Task} Task */
/**
 * @typedef {object} Form
 * @property {HTMLElement} element
 * @property {(event: KeyboardEvent) => boolean} key handles a key that no text field took; true where it meant something
 * @property {HTMLElement | null} focus what should have the focus when the item appears
 * @property {() => void} [close]
 */
/**
 * @typedef {object} Wants
 * @property {(answer: Answer) => void} answer the person has answered
 * @property {(draft: any) => void} draft the person has begun
 * @property {any} begun what the person had begun earlier, or undefined
 * @property {Answer | undefined} was the answer that was taken back
 * @property {import("../subject.js").SubjectView} subject
 */

/** @type {Record<Task["kind"], (task: Task, wants: Wants) => Form>} */
const FORMS = { label: labelForm, labels: labelsForm, boxes: boxesForm, number: numberForm, json: jsonForm };

/**
 * @param {Task} task
 * @param {Wants} wants
 * @returns {Form}
 */
export function answerForm(task, wants) {
  return FORMS[task.kind](task, wants);
}
