// The queues' figures as the server last told them. What this tab holds counts as waiting, too; only what it held when
// it asked is not among the server's waiting items, so only that is added.

/** @typedef {import("./types.js").QueueState} QueueState */

export class Figures {
  /** @type {QueueState[]} */
  queues = [];
  /** @type {Set<string>} */
  #held = new Set();

  /**
   * @param {import("./api.js").Api} api
   * @param {Set<string>} held the tokens of what this tab holds now
   * @throws {import("./api.js").ApiError}
   */
  async read(api, held) {
    ({ queues: this.queues } = await api.call("queues"));
    this.#held = held;
  }

  get names() {
    return this.queues.map(({ name }) => name);
  }

  /** @param {string} wanted */
  of(wanted) {
    return this.queues.find(({ name }) => name === wanted);
  }

  /**
   * How much waits in a queue, with what is held here and not answered yet.
   * @param {string} name
   * @param {Set<string>} held
   */
  waits(name, held) {
    return (this.of(name)?.waiting ?? 0) + [...held].filter((token) => this.#held.has(token)).length;
  }
}
