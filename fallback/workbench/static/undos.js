// Answers that can still be taken back, and what became of them when they no longer could. In a blind review the server
// says nothing of the model's guess before that: a second look after the guess would not be a blind one.

import { backOffSeconds, callUntilJudged, pause, toApiError } from "./api.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Submitted} Submitted */
/** @typedef {{deferral: string, answer: Answer, comment: string, sentMs: number, untilMs: number}} Undoable */
/**
 * @typedef {object} Listener
 * @property {(newest: Undoable | null, seconds: number) => void} ticked
 * @property {(undoable: Undoable, lease: import("./types.js").Lease) => void} takenBack
 * @property {(undoable: Undoable, error: import("./api.js").ApiError) => void} refused
 * @property {(undoable: Undoable, submitted: Submitted) => void} told what became of it
 * @property {(error: import("./api.js").ApiError, seconds: number) => void} trouble
 * @property {() => void} calm
 */

const TICK_MS = 200;
const ASK_TIMES_MAX = 10;

export class Undos {
  /** @type {Undoable[]} newest last */
  #open = [];
  #busy = false;

  /**
   * @param {import("./api.js").Api} api
   * @param {Listener} listener
   */
  constructor(api, listener) {
    this.api = api;
    this.listener = listener;
    setInterval(() => this.#tick(), TICK_MS);
  }

  /** @returns {Undoable | null} what `takeBack` would take back */
  get newest() {
    return this.#open.at(-1) ?? null;
  }

  /** @param {Undoable} undoable */
  add(undoable) {
    this.#open.push(undoable);
    this.#tick();
  }

  /** Takes the last answer back; false where there is none. */
  takeBack() {
    if (this.#busy) return true;
    const undoable = this.#open.pop();
    if (undoable === undefined) return false;
    void this.#takeBack(undoable);
    return true;
  }

  /** @param {Undoable} undoable */
  async #takeBack(undoable) {
    this.#busy = true;
    try {
      const { lease } = await callUntilJudged(this.api, "undo", { deferral: undoable.deferral }, this.listener);
      this.listener.takenBack(undoable, lease);
    } catch (caught) {
      this.listener.refused(undoable, toApiError(caught));
      void this.#ask(undoable);
    }
    this.#busy = false;
    this.#tick();
  }

  #tick() {
    const now = Date.now();
    for (const over of this.#open.filter(({ untilMs }) => untilMs <= now)) void this.#ask(over);
    this.#open = this.#open.filter(({ untilMs }) => untilMs > now);
    const newest = this.#busy ? null : this.newest;
    this.listener.ticked(newest, newest === null ? 0 : (newest.untilMs - now) / 1000);
  }

  /**
   * Asks what became of an answer until it is settled, or more people have to look first.
   * @param {Undoable} undoable
   */
  async #ask(undoable) {
    for (let attempt = 0; attempt < ASK_TIMES_MAX; attempt += 1) {
      try {
        /** @type {Submitted} */
        const submitted = await this.api.call("verdict", { deferral: undoable.deferral });
        const waits = submitted.open && submitted.reviews_done >= submitted.reviews_wanted;
        if (!waits || attempt === ASK_TIMES_MAX - 1) return this.listener.told(undoable, { ...submitted, undo_seconds: 0 });
        await pause(0.2);
      } catch (caught) {
        const error = toApiError(caught);
        if (error.final) return;
        await pause(backOffSeconds(error, attempt));
      }
    }
  }
}
