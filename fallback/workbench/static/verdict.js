// What became of the last answer: recorded, and whether the model had guessed the same; and a short trail of the ones
// before it. Stands beside the next item, never over it.

import { announce, h } from "./dom.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Prediction} Prediction */
/** @typedef {import("./types.js").Submitted} Submitted */
/** @typedef {{thumb: (() => HTMLElement) | null}} Mark */

const TRAIL_MAX = 14;
const THUMB_SIDE = 48;
const TEXT_CHARS_MAX = 60;

/**
 * @param {Answer} answer
 * @returns {string} in a few words
 */
export function answerText(answer) {
  switch (answer.type) {
    case "label": return answer.label;
    case "labels": return answer.labels.length === 0 ? "none" : answer.labels.join(", ");
    case "boxes": return answer.boxes.length === 1 ? "1 box" : `${answer.boxes.length} boxes`;
    case "number": return String(answer.number);
    case "json": return answer.json.length > TEXT_CHARS_MAX ? `${answer.json.slice(0, TEXT_CHARS_MAX)}…` : answer.json;
    case "cant_tell": return "can’t tell";
  }
}

/** @param {number} confidence in [0, 1] */
export function percent(confidence) {
  const value = Math.min(Math.max(confidence, 0), 1) * 100;
  return `${value > 99 && value < 100 ? Math.floor(value * 10) / 10 : Math.round(value)}\u00a0%`;
}

/**
 * @param {Answer} answer
 * @param {Submitted} submitted
 * @returns {{kind: "same" | "other" | "plain", text: string}}
 */
export function verdictOf(answer, submitted) {
  const { prediction, model_agreed: agreed } = submitted;
  const more = submitted.open && submitted.reviews_done < submitted.reviews_wanted ? " Another person will look, too." : "";
  if (prediction === null) return { kind: "plain", text: `Recorded.${more}` };
  const guess = `${answerText(prediction.answer)} (${percent(prediction.confidence)})`;
  if (agreed) return { kind: "same", text: `The model had guessed the same, ${percent(prediction.confidence)} sure.${more}` };
  return { kind: answer.type === "cant_tell" ? "plain" : "other", text: `The model had guessed ${guess}.${more}` };
}

export class Verdicts {
  constructor() {
    this.last = h("div", { class: "verdict", hidden: true });
    this.trail = h("ol", { class: "trail", "aria-label": "Your last answers, newest first" });
    this.element = h("section", { class: "verdicts", "aria-label": "Your last answers" }, this.last, this.trail);
  }

  /**
   * Shows an answer as given, before the server has said anything.
   * @param {Answer} answer
   * @param {Mark} mark
   */
  sending(answer, mark) {
    this.#show("plain", answer, "Sending…", mark);
  }

  /**
   * @param {Answer} answer
   * @param {Submitted} submitted
   * @param {Mark | undefined} mark
   */
  taken(answer, submitted, mark) {
    const { kind, text } = verdictOf(answer, submitted);
    this.#show(kind, answer, text, mark);
    const sign = kind === "same" ? "=" : kind === "other" ? "≠" : "·";
    this.trail.prepend(h("li", { class: kind, title: `${answerText(answer)}. ${text}` },
      mark?.thumb?.() ?? null, h("span", { class: "trail-answer" }, answerText(answer)), h("span", { "aria-hidden": "true" }, sign), h("span", { class: "unseen" }, text)));
    while (this.trail.childElementCount > TRAIL_MAX) this.trail.lastElementChild?.remove();
    announce(`${answerText(answer)}. ${text}`);
  }

  get any() {
    return !this.last.hidden;
  }

  /** Takes back what `sending` showed. */
  clear() {
    this.last.hidden = true;
  }

  /**
   * @param {string} kind
   * @param {Answer} answer
   * @param {string} text
   * @param {Mark | undefined} mark
   */
  #show(kind, answer, text, mark) {
    this.last.hidden = false;
    this.last.className = `verdict ${kind}`;
    this.last.replaceChildren(...[
      mark?.thumb?.() ?? null,
      h("div", {}, h("p", { class: "verdict-answer" }, "You: ", h("b", { dir: "auto" }, answerText(answer))), h("p", {}, text)),
      h("span", { class: "sign", "aria-hidden": "true" }, kind === "same" ? "=" : kind === "other" ? "≠" : ""),
    ].filter((child) => child !== null));
  }
}

/**
 * A small picture of what was looked at; drawn anew at each place, since a canvas loses its picture when it is cloned.
 * @param {HTMLImageElement | null} image
 * @returns {(() => HTMLElement) | null}
 */
export function thumbOf(image) {
  if (image === null || !image.complete || image.naturalWidth === 0) return null;
  const drawn = draw(image, image.naturalWidth, image.naturalHeight);
  return () => draw(drawn, THUMB_SIDE, THUMB_SIDE);
}

/**
 * @param {HTMLImageElement | HTMLCanvasElement} picture
 * @param {number} width
 * @param {number} height
 */
function draw(picture, width, height) {
  const canvas = h("canvas", { class: "thumb", width: THUMB_SIDE, height: THUMB_SIDE, "aria-hidden": "true" });
  const pen = canvas.getContext("2d");
  const scale = THUMB_SIDE / Math.max(width, height);
  pen.imageSmoothingEnabled = scale < 1;
  pen.drawImage(picture, (THUMB_SIDE - width * scale) / 2, (THUMB_SIDE - height * scale) / 2, width * scale, height * scale);
  return canvas;
}
