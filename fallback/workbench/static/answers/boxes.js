// Boxes on an image: choose a label, drag; or add one with the keyboard and move it with the arrows. Enter answers.

import { h, svg } from "../dom.js";
import { labelOfKey, withKeys } from "../keys.js";
import { choices } from "./choices.js";

/** @typedef {import("../types.js").Box} Box */

const BOXES_MAX = 1_000;

/** @param {number} value pixels, to two decimals */
function rounded(value) {
  return Math.round(value * 100) / 100;
}

/**
 * The box between two corners, kept inside the image.
 * @param {string} label
 * @param {{x: number, y: number}} one
 * @param {{x: number, y: number}} other
 * @param {{width: number, height: number}} size
 * @returns {Box}
 */
export function boxBetween(label, one, other, size) {
  const inside = (/** @type {number} */ value, /** @type {number} */ limit) => Math.min(Math.max(value, 0), limit);
  const [left, right] = [one.x, other.x].map((x) => inside(x, size.width)).sort((a, b) => a - b);
  const [top, bottom] = [one.y, other.y].map((y) => inside(y, size.height)).sort((a, b) => a - b);
  return { label, x: rounded(left), y: rounded(top), width: rounded(right - left), height: rounded(bottom - top) };
}

/**
 * Moves a box, or with `grow` its lower right corner, and keeps it inside the image and no smaller than a step.
 * @param {Box} box
 * @param {number} dx
 * @param {number} dy
 * @param {boolean} grow
 * @param {{width: number, height: number}} size
 * @returns {Box}
 */
export function nudged(box, dx, dy, grow, size) {
  const between = (/** @type {number} */ value, /** @type {number} */ low, /** @type {number} */ high) => rounded(Math.min(Math.max(value, low), Math.max(low, high)));
  if (!grow) return { ...box, x: between(box.x + dx, 0, size.width - box.width), y: between(box.y + dy, 0, size.height - box.height) };
  const length = (/** @type {number} */ value, /** @type {number} */ step, /** @type {number} */ room) => between(value + step, Math.min(Math.abs(step), room), room);
  return { ...box, width: length(box.width, dx, size.width - box.x), height: length(box.height, dy, size.height - box.y) };
}

/**
 * Whether what was begun earlier is a box of this task.
 * @param {any} box
 * @param {import("../types.js").Task} task
 */
function isBox(box, task) {
  return [box?.x, box?.y, box?.width, box?.height].every(Number.isFinite) && task.labels.some(({ label }) => label === box.label);
}

/**
 * @param {import("../types.js").Task} task
 * @param {import("./form.js").Wants} wants
 * @returns {import("./form.js").Form}
 */
export function boxesForm(task, wants) {
  const { image, frame } = wants.subject;
  if (image === null || frame === null) {
    return { element: h("p", { class: "fault" }, "This task asks for boxes on an image, and the item is not an image."), focus: null, key: () => false };
  }
  return new BoxesForm(task, wants, image, frame);
}

class BoxesForm {
  /** @type {Box[]} */
  #boxes = [];
  #selected = -1;
  /** Whether the selected box was picked on purpose, so that choosing a label changes it and not only the next one. */
  #picked = false;
  #label;
  #labels;
  #drag = /** @type {{x: number, y: number} | null} */ (null);

  /**
   * @param {import("../types.js").Task} task
   * @param {import("./form.js").Wants} wants
   * @param {HTMLImageElement} image
   * @param {HTMLElement} frame
   */
  constructor(task, wants, image, frame) {
    this.wants = wants;
    this.image = image;
    /** @type {HTMLElement | null} */
    this.focus = null;
    this.#labels = withKeys(task.labels);
    this.#label = this.#labels[0].label;
    if (Array.isArray(wants.begun)) this.#boxes = wants.begun.filter((box) => isBox(box, task));
    const { element, buttons } = choices(this.#labels, (label) => this.#choose(label), true);
    this.buttons = buttons;
    this.list = h("ol", { class: "box-list", "aria-label": "Boxes" });
    this.submit = h("button", { type: "button", class: "primary wide", onclick: () => this.#send() });
    this.element = h("div", { class: "form" },
      h("p", { class: "muted" }, "Choose a label, then drag on the image. ",
        h("span", { class: "hint-keys" }, "Arrows move the last box, Shift and arrows size it, Delete removes it; click a box to pick it.")),
      element, this.list,
      h("button", { type: "button", class: "quiet", onclick: () => this.#add() }, "Add a box without dragging"), this.submit);
    this.overlay = svg("svg", { class: "boxes", "aria-hidden": "true" });
    frame.append(this.overlay);
    frame.classList.add("drawing");
    this.#listen(frame);
    image.complete && image.naturalWidth > 0 ? this.#show() : image.addEventListener("load", () => this.#show(), { once: true });
  }

  get size() {
    return { width: this.image.naturalWidth, height: this.image.naturalHeight };
  }

  /** @param {HTMLElement} frame */
  #listen(frame) {
    frame.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.size.width === 0) return;
      event.preventDefault();
      frame.setPointerCapture(event.pointerId);
      this.#drag = this.#point(event);
    });
    frame.addEventListener("pointermove", (event) => {
      if (this.#drag !== null) this.#show(boxBetween(this.#label, this.#drag, this.#point(event), this.size));
    });
    frame.addEventListener("pointerup", (event) => {
      if (this.#drag !== null) this.#finish(this.#drag, this.#point(event));
      this.#drag = null;
    });
    frame.addEventListener("pointercancel", () => {
      this.#drag = null;
      this.#show();
    });
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const place = this.image.getBoundingClientRect();
    return {
      x: (event.clientX - place.left) * this.size.width / place.width,
      y: (event.clientY - place.top) * this.size.height / place.height,
    };
  }

  /**
   * A drag makes a box; a click chooses the smallest one under it.
   * @param {{x: number, y: number}} from
   * @param {{x: number, y: number}} to
   */
  #finish(from, to) {
    const box = boxBetween(this.#label, from, to, this.size);
    const scale = this.image.getBoundingClientRect().width / this.size.width;
    if (Math.min(box.width, box.height) * scale >= 4) return this.#change([...this.#boxes, box], this.#boxes.length);
    const under = this.#boxes.map((other, index) => ({ other, index }))
      .filter(({ other }) => to.x >= other.x && to.y >= other.y && to.x <= other.x + other.width && to.y <= other.y + other.height)
      .sort((one, other) => one.other.width * one.other.height - other.other.width * other.other.height);
    this.#pick(under[0]?.index ?? -1);
  }

  #add() {
    const { width, height } = this.size;
    this.#change([...this.#boxes, boxBetween(this.#label, { x: width / 4, y: height / 4 }, { x: width * 0.75, y: height * 0.75 }, this.size)], this.#boxes.length);
    this.list.querySelector("[aria-current]")?.focus();
  }

  /** @param {number} index */
  #pick(index) {
    if (this.#boxes[index] !== undefined) this.#label = this.#boxes[index].label;
    this.#change(this.#boxes, index);
    this.#picked = index >= 0;
  }

  /** @param {string} label */
  #choose(label) {
    this.#label = label;
    if (!this.#picked) return this.#show();
    this.#change(this.#boxes.map((box, index) => (index === this.#selected ? { ...box, label } : box)), this.#selected);
    this.#picked = true;
  }

  #send() {
    this.wants.answer({ type: "boxes", boxes: this.#boxes });
  }

  /**
   * @param {Box[]} boxes
   * @param {number} selected
   */
  #change(boxes, selected) {
    this.#picked = false;
    this.#boxes = boxes.slice(0, BOXES_MAX);
    this.#selected = selected;
    this.wants.draft(this.#boxes);
    this.#show();
  }

  /** @param {Box} [drawn] the one under the pointer */
  #show(drawn) {
    const { width, height } = this.size;
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const all = drawn === undefined ? this.#boxes : [...this.#boxes, drawn];
    this.overlay.replaceChildren(...all.flatMap((box, index) => {
      const chosen = index === this.#selected || box === drawn;
      const edges = { x: box.x, y: box.y, width: box.width, height: box.height };
      return [svg("rect", { ...edges, class: "box-under" }), svg("rect", { ...edges, class: chosen ? "box chosen" : "box" })];
    }));
    if (drawn !== undefined) return;
    for (const [label, button] of this.buttons) button.setAttribute("aria-pressed", String(label === this.#label));
    this.#showList();
    const count = this.#boxes.length;
    this.submit.replaceChildren(count === 0 ? "Nothing to box here" : count === 1 ? "Answer with 1 box" : `Answer with ${count} boxes`, h("kbd", {}, "Enter"));
  }

  #showList() {
    const focused = this.list.contains(document.activeElement);
    this.list.replaceChildren(...this.#boxes.map((box, index) => h("li", {},
      h("button", {
        type: "button", class: "box-row", "aria-current": index === this.#selected ? "true" : null, onclick: () => this.#pick(index),
      }, h("b", {}, box.label), ` ${Math.round(box.width)} × ${Math.round(box.height)} at ${Math.round(box.x)}, ${Math.round(box.y)}`),
      h("button", { type: "button", class: "quiet remove", "aria-label": `Remove box ${index + 1}, ${box.label}`, onclick: () => this.#remove(index) }, "×"))));
    if (focused) this.list.querySelector("[aria-current]")?.focus();
  }

  /** @param {number} index */
  #remove(index) {
    this.#change(this.#boxes.filter((_, other) => other !== index), Math.min(index, this.#boxes.length - 2));
  }

  /**
   * @param {KeyboardEvent} event
   * @returns {boolean}
   */
  key(event) {
    if (event.key === "Enter") {
      this.#send();
      return true;
    }
    const box = this.#boxes[this.#selected];
    if (box !== undefined && (event.key === "Delete" || event.key === "Backspace")) {
      this.#remove(this.#selected);
      return true;
    }
    const step = Math.max(this.size.width, this.size.height) / 100;
    const arrows = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const arrow = arrows[/** @type {keyof typeof arrows} */ (event.key)];
    if (box !== undefined && arrow !== undefined) {
      this.#change(this.#boxes.with(this.#selected, nudged(box, arrow[0], arrow[1], event.shiftKey, this.size)), this.#selected);
      return true;
    }
    const label = labelOfKey(this.#labels, event.key);
    if (label !== null) this.#choose(label);
    return label !== null;
  }

  close() {
    this.overlay.remove();
  }
}
