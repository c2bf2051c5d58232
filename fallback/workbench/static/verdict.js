// What became of the last answer: recorded, how long it can still be taken back, and, when it no longer can, whether the
// model had guessed the same; and a short trail of the ones before it. Stands beside the next item, never over it.

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

/** @param {import("./types.js").Prediction} prediction */
export function sure(prediction) {
  return percent(prediction.shown ?? prediction.confidence);
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
  if (prediction === null) return { kind: "plain", text: submitted.undo_seconds > 0 && more === "" ? "Recorded, not final yet." : `Recorded.${more}` };
  const guess = `${answerText(prediction.answer)} (${sure(prediction)})`;
  if (agreed) return { kind: "same", text: `The model had guessed the same, ${sure(prediction)} sure.${more}` };
  return { kind: answer.type === "cant_tell" ? "plain" : "other", text: `The model had guessed ${guess}.${more}` };
}

/**
 * @param {number} seconds
 * @returns {string} minutes and seconds
 */
export function clock(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** @typedef {{deferral: string, answer: Answer, mark: Mark | undefined, row: HTMLElement}} Told */

export class Verdicts {
  /** @type {Told[]} newest first */
  #told = [];

  /** @param {() => void} undo */
  constructor(undo) {
    this.words = h("div");
    this.picture = h("span", { class: "picture" });
    this.sign = h("span", { class: "sign", "aria-hidden": "true" });
    this.left = h("span", { class: "undo-left", "aria-hidden": "true" });
    this.undoKey = h("kbd", {}, "u");
    this.undo = h("button", { type: "button", class: "undo", hidden: true, onclick: undo }, "Undo", this.undoKey, this.left);
    this.bar = h("span", { class: "undo-bar", "aria-hidden": "true" });
    this.last = h("div", { class: "verdict", hidden: true }, this.picture, this.words, this.sign, this.undo, this.bar);
    this.trail = h("ol", { class: "trail", "aria-label": "Your last answers, newest first" });
    this.element = h("section", { class: "verdicts", "aria-label": "Your last answers" }, this.last, this.trail);
  }

  get any() {
    return !this.last.hidden;
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
   * @param {string} deferral
   * @param {Answer} answer
   * @param {Submitted} submitted
   * @param {Mark | undefined} mark
   */
  taken(deferral, answer, submitted, mark) {
    const told = { deferral, answer, mark, row: h("li") };
    this.#told.unshift(told);
    this.trail.prepend(told.row);
    for (const old of this.#told.splice(TRAIL_MAX)) old.row.remove();
    this.#tell(told, submitted, submitted.undo_seconds > 0 ? ` It can be undone for ${Math.round(submitted.undo_seconds)} seconds.` : "");
  }

  /**
   * Says what became of an answer that could be taken back until now.
   * @param {string} deferral
   * @param {Submitted} submitted
   */
  settled(deferral, submitted) {
    const told = this.#told.find((one) => one.deferral === deferral);
    if (told !== undefined) this.#tell(told, submitted, "");
  }

  /** @param {string} deferral whose answer was taken back */
  takenBack(deferral) {
    this.#told.find((one) => one.deferral === deferral)?.row.remove();
    this.#told = this.#told.filter((one) => one.deferral !== deferral);
    this.last.hidden = true;
  }

  /** Says that the answer on show is being taken back. */
  takingBack() {
    const [, text] = this.words.children;
    if (text !== undefined) text.textContent = "Taking it back…";
  }

  /** Takes back what `sending` showed. */
  clear() {
    this.last.hidden = true;
  }

  /**
   * Shows how long the last answer can be taken back; null: it cannot.
   * @param {{sentMs: number, untilMs: number} | null} newest
   * @param {number} seconds
   */
  countDown(newest, seconds) {
    this.undo.hidden = this.bar.hidden = newest === null;
    if (newest === null) return;
    const left = clock(seconds);
    if (this.left.textContent !== left) this.left.textContent = left;
    this.bar.style.transform = `scaleX(${Math.max(0, Math.min(1, (seconds * 1000) / (newest.untilMs - newest.sentMs)))})`;
    this.last.hidden = this.words.childElementCount === 0;
  }

  /** @param {string} key that takes back where the item on the page leaves one free */
  nameKey(key) {
    this.undoKey.textContent = key;
    this.undoKey.hidden = key === "";
  }

  /**
   * @param {Told} told
   * @param {Submitted} submitted
   * @param {string} more only said
   */
  #tell(told, submitted, more) {
    const { kind, text } = verdictOf(told.answer, submitted);
    const words = answerText(told.answer);
    const sign = kind === "same" ? "=" : kind === "other" ? "≠" : "·";
    told.row.className = kind;
    told.row.title = `${words}. ${text}`;
    told.row.replaceChildren(...[told.mark?.thumb?.() ?? null, h("span", { class: "trail-answer" }, words), h("span", { "aria-hidden": "true" }, sign), h("span", { class: "unseen" }, text)].filter((child) => child !== null));
    if (told !== this.#told[0]) return;
    this.#show(kind, told.answer, text, told.mark);
    announce(`${words}. ${text}${more}`);
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
    this.picture.replaceChildren(...[mark?.thumb?.() ?? null].filter((child) => child !== null));
    this.words.replaceChildren(h("p", { class: "verdict-answer" }, "You: ", h("b", { dir: "auto" }, answerText(answer))), h("p", {}, text));
    this.sign.textContent = kind === "same" ? "=" : kind === "other" ? "≠" : "";
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
