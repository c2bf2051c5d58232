// The leases this tab holds: one that is looked at, a few ahead so that the next is there at once. They are extended
// while somebody works here, given back when nobody does, and counted as lapsed when their time is over.

import { backOffSeconds, KEEPALIVE_BYTES_MAX, pause, requestId, toApiError } from "./api.js";

/** @typedef {import("./types.js").Lease} Lease */
/** @typedef {{lease: Lease, untilMs: number, extendId: string | null, nextTryMs: number}} Hold */
/**
 * @typedef {object} Listener
 * @property {() => void} changed what is held changed
 * @property {(lease: Lease, current: boolean) => void} lapsed
 * @property {(lease: Lease) => string} leaving what was begun there and not saved yet
 * @property {(error: import("./api.js").ApiError, seconds: number) => void} trouble it will be tried again in so many seconds
 * @property {() => void} calm the server answers again
 * @property {(error: import("./api.js").ApiError) => void} failed it will not be tried again
 * @property {(lease: Lease) => number} begunMs when it was last worked on; 0 where nothing was begun
 * @property {() => void} resumed what was held already is held here now
 * @property {() => void} takenOver it is held in another place now, and this one has given back the rest
 */

const AHEAD_MAX = 2;
// Of subjects this large (base64 characters), only one is fetched ahead.
const LARGE_CHARS = 1_500_000;
const WAIT_SECONDS = 5;
const TICK_MS = 1_000;
const CHECK_MS = 2_000;

export class Holds {
  /** @type {Hold | null} */
  #current = null;
  /** @type {Hold[]} */
  #ahead = [];
  /** @type {AbortController | null} */
  #run = null;
  #queue = "";
  #wake = () => {};
  /** Whether the last look found less than it asked for. */
  #dry = false;

  /**
   * @param {import("./api.js").Api} api
   * @param {Listener} listener
   */
  constructor(api, listener) {
    this.api = api;
    this.listener = listener;
    setInterval(() => this.#tick(), TICK_MS);
  }

  /** @returns {Lease | null} */
  get current() {
    return this.#current?.lease ?? null;
  }

  /** What is held here, by tokens. */
  get tokens() {
    return new Set(this.#all.map(({ lease }) => lease.token));
  }

  get size() {
    return this.#ahead.length + (this.#current === null ? 0 : 1);
  }

  /** Whether there is nothing here and nothing to be had. */
  get empty() {
    return this.#dry && this.size === 0;
  }

  get open() {
    return this.#run !== null;
  }

  /**
   * @param {string} queue
   * @param {Promise<boolean>} resume whether to go on with what this person holds already: then it is held nowhere else
   */
  start(queue, resume) {
    this.stop();
    this.#queue = queue;
    this.#dry = false;
    this.#run = new AbortController();
    void this.#fill(this.#run.signal, resume);
  }

  /**
   * Gives everything back.
   * @param {boolean} [leaving] the page is left, perhaps only to be loaded anew
   */
  stop(leaving = false) {
    this.#run?.abort();
    this.#run = null;
    const held = this.#all;
    this.#current = null;
    this.#ahead = [];
    this.#release(held, leaving);
  }

  /** Its person went on in another place: this one stops, and does not take it back by itself. */
  takenOver() {
    if (!this.open) return;
    this.stop();
    this.listener.takenOver();
  }

  /** Asks at once whether all is still held here: somebody comes back to a tab that was behind others. */
  check() {
    for (const hold of this.#all) if (hold.nextTryMs === 0 && hold.untilMs - Date.now() < hold.lease.lease_seconds * 1000 - CHECK_MS) void this.#extend(hold);
  }

  get #all() {
    return [...(this.#current === null ? [] : [this.#current]), ...this.#ahead];
  }

  /** Gives back what is held ahead: others may be waiting for it. */
  stopAhead() {
    this.#release(this.#ahead.splice(0));
  }

  /** Moves on; what was looked at has been answered. */
  next() {
    this.#current = this.#ahead.shift() ?? null;
    this.#wake();
  }

  /** Gives the current item back and moves on. */
  putBack() {
    if (this.#current !== null) this.#release([this.#current]);
    this.next();
  }

  /**
   * Takes an item up again whose answer was refused or taken back.
   * @param {Lease} lease
   */
  retake(lease) {
    if (this.#current !== null) this.#ahead.unshift(this.#current);
    this.#current = held(lease);
    this.#release(this.#ahead.splice(AHEAD_MAX));
  }

  /**
   * @param {AbortSignal} signal
   * @param {Promise<boolean>} resume
   */
  async #fill(signal, resume) {
    let resuming = await resume;
    for (let attempt = 0; !signal.aborted; ) {
      const limit = this.#room();
      // Nothing is taken for a tab that nobody looks at.
      if (limit <= 0 || document.hidden) {
        await this.#woken(signal);
        continue;
      }
      const begun = Date.now();
      const body = { queue: this.#queue, limit, wait_seconds: this.#dry ? WAIT_SECONDS : 0, resume: resuming };
      try {
        const { leases } = await this.api.call("lease", body, { signal });
        attempt = 0;
        this.#dry = leases.length < limit;
        // Of what was held already, first what somebody is in the middle of.
        if (resuming) leases.sort((/** @type {Lease} */ one, /** @type {Lease} */ other) => this.listener.begunMs(other) - this.listener.begunMs(one));
        resuming = false;
        this.#take(leases);
        if (leases.some((/** @type {Lease} */ lease) => lease.resumed)) this.listener.resumed();
        // A server that stops lets nobody wait; it must not be asked without end.
        if (leases.length === 0 && body.wait_seconds > 0 && Date.now() - begun < 1_000) await pause(1, signal);
      } catch (caught) {
        if (signal.aborted) return;
        const error = toApiError(caught);
        if (error.final || error.code === "UNAUTHENTICATED") {
          this.listener.failed(error);
          return;
        }
        const seconds = backOffSeconds(error, attempt++);
        this.listener.trouble(error, seconds);
        await pause(seconds, signal);
      }
    }
  }

  #room() {
    const large = [this.#current, ...this.#ahead].some((hold) => (hold?.lease.subject.content.length ?? 0) > LARGE_CHARS);
    return (large ? 1 : AHEAD_MAX) + 1 - this.size;
  }

  /** @param {Lease[]} leases */
  #take(leases) {
    this.#ahead.push(...leases.map(held));
    if (this.#current === null) this.#current = this.#ahead.shift() ?? null;
    this.listener.calm();
    this.listener.changed();
  }

  /** @param {AbortSignal} signal */
  #woken(signal) {
    return /** @type {Promise<void>} */ (new Promise((resolve) => {
      const wake = () => { document.removeEventListener("visibilitychange", wake); resolve(); };
      this.#wake = wake;
      document.addEventListener("visibilitychange", wake);
      signal.addEventListener("abort", wake, { once: true });
    }));
  }

  #tick() {
    const now = Date.now();
    for (const hold of this.#all) {
      const leaseMs = hold.lease.lease_seconds * 1000;
      if (now >= hold.untilMs) this.#lapse(hold);
      else if (hold.untilMs - now < leaseMs * 0.67 && now >= hold.nextTryMs) void this.#extend(hold);
    }
  }

  /** @param {Hold} hold */
  async #extend(hold) {
    hold.nextTryMs = Infinity;
    hold.extendId ??= requestId();
    try {
      const { lease_seconds } = await this.api.call("extend", { token: hold.lease.token, request_id: hold.extendId });
      hold.untilMs = Date.now() + lease_seconds * 1000;
      hold.extendId = null;
      hold.nextTryMs = 0;
    } catch (caught) {
      const error = toApiError(caught);
      if (error.takenOver) this.takenOver();
      else if (error.code === "FAILED_PRECONDITION" || error.code === "NOT_FOUND") this.#lapse(hold);
      else {
        hold.nextTryMs = Date.now() + 2_000;
        this.listener.trouble(error, 2);
      }
    }
  }

  /** @param {Hold} hold */
  #lapse(hold) {
    const current = hold === this.#current;
    if (!current && !this.#ahead.includes(hold)) return;
    this.#ahead = this.#ahead.filter((other) => other !== hold);
    if (current) this.#current = this.#ahead.shift() ?? null;
    this.listener.lapsed(hold.lease, current);
    this.#wake();
  }

  /**
   * @param {Hold[]} holds
   * @param {boolean} [leaving]
   */
  #release(holds, leaving = false) {
    if (holds.length === 0) return;
    const drafts = holds.map((hold) => this.listener.leaving(hold.lease));
    // Giving back outlives the page, what was begun only as far as the browser lets it; it lies here, too.
    const fits = new Blob([JSON.stringify(drafts)]).size < KEEPALIVE_BYTES_MAX / 2;
    const releases = holds.map((hold, index) => ({ token: hold.lease.token, draft: fits ? drafts[index] : "", request_id: requestId() }));
    // Should this be lost, the leases lapse by themselves.
    this.api.call("release", { releases, leaving }, { keepalive: true }).catch(() => {});
  }
}

/**
 * @param {Lease} lease
 * @returns {Hold}
 */
function held(lease) {
  return { lease, untilMs: Date.now() + lease.lease_seconds * 1000, extendId: null, nextTryMs: 0 };
}
