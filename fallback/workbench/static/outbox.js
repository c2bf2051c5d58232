// Answers, skips and flags on their way. Each is sent until the server took or refused it, in order and always with the
// same request id, so that a repeat is the same one. They lie in the tab's storage and survive a reload.

import { backOffSeconds, pause, requestId, toApiError } from "./api.js";

/** @typedef {import("./types.js").Lease} Lease */
/**
 * @typedef {object} Entry
 * @property {"submit" | "skip" | "flag"} path
 * @property {any} body what is sent but for the request id
 * @property {string} deferral
 * @property {string} requestId
 * @property {number} [sentMs] when it was last sent
 * @property {Lease} [lease] not kept over a reload, as is the mark
 * @property {any} [mark] what the page wants back with the reply
 */
/**
 * @typedef {object} Listener
 * @property {(entry: Entry, reply: any) => void} taken a Submitted, where it was an answer
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
   * Waits until nothing is under way, but not for ever.
   * @param {number} seconds
   */
  async drained(seconds) {
    const until = Date.now() + seconds * 1000;
    while (this.length > 0 && Date.now() < until) await pause(0.05);
    return this.length === 0;
  }

  /** Whether an answer is among them. */
  get answering() {
    return this.#entries.some(({ path }) => path === "submit");
  }

  /**
   * @param {Entry["path"]} path
   * @param {Lease} lease
   * @param {any} body what is sent besides the item's name or token
   * @param {any} [mark]
   */
  add(path, lease, body, mark) {
    // A flag is about the item, whoever holds it; the others are what its holder does.
    const what = path === "flag" ? { deferral: lease.deferral } : { token: lease.token };
    this.#entries.push({ path, body: { ...what, ...body }, deferral: lease.deferral, requestId: requestId(), lease, mark });
    this.#store();
    void this.#send();
  }

  async #send() {
    if (this.#sending) return;
    this.#sending = true;
    for (let attempt = 0; this.#entries.length > 0; ) {
      const entry = this.#entries[0];
      entry.sentMs = Date.now();
      try {
        // What a page may send past its own end is bounded over all of its requests; a second try goes without.
        const reply = await this.api.call(entry.path, { ...entry.body, request_id: entry.requestId }, { keepalive: attempt === 0 });
        attempt = 0;
        this.#finish();
        this.listener.calm();
        this.listener.taken(entry, reply);
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
      return stored.reviewer === this.reviewer && Array.isArray(stored.entries) ? stored.entries.filter((/** @type {Entry} */ entry) => typeof entry.path === "string") : [];
    } catch {
      return [];
    }
  }

  #store() {
    const entries = this.#entries.map(({ path, body, deferral, requestId }) => ({ path, body, deferral, requestId }));
    try {
      sessionStorage.setItem(STORE, JSON.stringify({ reviewer: this.reviewer, entries }));
    } catch {
      // A tab without storage loses what is under way only when it is closed.
    }
  }
}
