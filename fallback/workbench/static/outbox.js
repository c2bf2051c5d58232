// Answers on their way. Each is sent until the server took or refused it, always with the same request id, so that a
// repeat is the same answer. They lie in the tab's storage and survive a reload.

import { backOffSeconds, pause, requestId, toApiError } from "./api.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Lease} Lease */
/** @typedef {import("./types.js").Submitted} Submitted */
/** @typedef {{token: string, deferral: string, answer: Answer, comment: string, requestId: string, lease?: Lease, mark?: any}} Entry */
/**
 * @typedef {object} Listener
 * @property {(entry: Entry, submitted: Submitted) => void} taken
 * @property {(entry: Entry, error: import("./api.js").ApiError) => void} refused
 * @property {(error: import("./api.js").ApiError, seconds: number) => void} trouble it will be tried again in so many seconds
 * @property {() => void} calm the server answers again
 */

const STORE = "demur.outbox";

export class Outbox {
  /** @type {Entry[]} */
  #entries = [];
  #sending = false;

  /**
   * @param {import("./api.js").Api} api
   * @param {string} reviewer
   * @param {Listener} listener
   */
  constructor(api, reviewer, listener) {
    this.api = api;
    this.reviewer = reviewer;
    this.listener = listener;
    this.#entries = this.#stored();
    void this.#send();
  }

  get length() {
    return this.#entries.length;
  }

  /**
   * @param {Lease} lease
   * @param {Answer} answer
   * @param {string} comment
   * @param {any} mark what the page wants back with the reply
   */
  add(lease, answer, comment, mark) {
    this.#entries.push({ token: lease.token, deferral: lease.deferral, answer, comment, requestId: requestId(), lease, mark });
    this.#store();
    void this.#send();
  }

  async #send() {
    if (this.#sending) return;
    this.#sending = true;
    for (let attempt = 0; this.#entries.length > 0; ) {
      const entry = this.#entries[0];
      const { token, answer, comment, requestId: request_id } = entry;
      try {
        const submitted = await this.api.call("submit", { token, answer, comment, request_id }, { keepalive: true });
        attempt = 0;
        this.#finish();
        this.listener.calm();
        this.listener.taken(entry, submitted);
      } catch (caught) {
        const error = toApiError(caught);
        if (error.final) {
          this.#finish();
          this.listener.refused(entry, error);
          continue;
        }
        const seconds = backOffSeconds(error, attempt++);
        this.listener.trouble(error, seconds);
        await pause(seconds);
      }
    }
    this.#sending = false;
  }

  #finish() {
    this.#entries.shift();
    this.#store();
  }

  /** @returns {Entry[]} */
  #stored() {
    try {
      const stored = JSON.parse(sessionStorage.getItem(STORE) ?? "{}");
      return stored.reviewer === this.reviewer && Array.isArray(stored.entries) ? stored.entries : [];
    } catch {
      return [];
    }
  }

  #store() {
    const entries = this.#entries.map(({ token, deferral, answer, comment, requestId }) => ({ token, deferral, answer, comment, requestId }));
    try {
      sessionStorage.setItem(STORE, JSON.stringify({ reviewer: this.reviewer, entries }));
    } catch {
      // A tab without storage loses what is under way only when it is closed.
    }
  }
}
