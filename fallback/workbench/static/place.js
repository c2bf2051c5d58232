// Where somebody works: a queue, in one tab of this browser at first. Its tab goes on with what its reviewer holds; one
// opened beside it takes items of its own. The browser keeps that place for the tab and frees it when the tab has gone,
// however it went. Where it cannot (an origin that is not secure), every tab is taken for the only one.

// How long a page that is being left may take to leave its place.
const WAIT_MS = 250;
const LOOK_MS = 2_000;
// An answer on its way has to arrive under the token it was given by, before what is held gets new ones.
const ARRIVE_SECONDS_MAX = 3;

export class Place {
  #name = "";
  #held = false;
  #beside = false;
  #leave = () => {};

  constructor() {
    if (navigator.locks !== undefined) setInterval(() => void this.#look(), LOOK_MS);
  }

  /** Whether this tab has the place and, as far as it knows, none stands beside it. */
  get alone() {
    return this.#held && !this.#beside;
  }

  /**
   * Takes a place and says whether to go on there with what its reviewer holds. Somebody opens a queue for that or asks
   * for it; it never happens by itself: else two places would take the same items from each other for ever.
   * @param {import("./outbox.js").Outbox | undefined} outbox
   * @param {string} queue
   * @param {boolean} here although another tab works there
   */
  async mayResume(outbox, queue, here) {
    if (outbox === undefined) return false;
    const [alone, arrived] = await Promise.all([this.take(outbox.reviewer, queue), outbox.drained(ARRIVE_SECONDS_MAX)]);
    return (alone || here) && arrived;
  }

  /**
   * Takes a place and leaves the one before.
   * @param {string} reviewer
   * @param {string} queue
   * @returns {Promise<boolean>} false where another tab has it; it falls to this one with that tab's end
   */
  take(reviewer, queue) {
    this.leave();
    this.#name = `demur.place.${queue}.${reviewer}`;
    if (navigator.locks === undefined) {
      this.#held = true;
      return Promise.resolve(true);
    }
    const left = new AbortController();
    this.#leave = () => left.abort();
    return new Promise((resolve) => {
      const late = setTimeout(() => resolve(false), WAIT_MS);
      const have = () => /** @type {Promise<void>} */ (new Promise((gone) => {
        clearTimeout(late);
        this.#held = true;
        this.#leave = gone;
        resolve(true);
      }));
      // Left before it was had: then nobody asks any more.
      navigator.locks.request(this.#name, { signal: left.signal }, have).catch(() => resolve(false));
    });
  }

  leave() {
    this.#leave();
    this.#leave = () => {};
    this.#held = this.#beside = false;
  }

  async #look() {
    const { pending = [] } = await navigator.locks.query();
    this.#beside = pending.some(({ name }) => name === this.#name);
  }
}
