// What somebody has begun to answer, kept in this browser until it is sent, so that a lapsed lease or a closed tab
// costs nobody their typing. Kept by reviewer and deferral; the oldest go first.

const PREFIX = "demur.draft.";
const DRAFTS_MAX = 30;
const DRAFT_CHARS_MAX = 100_000;

/** @typedef {{answer?: any, comment?: string}} Draft */

export class Drafts {
  /** @param {string} reviewer */
  constructor(reviewer) {
    this.prefix = `${PREFIX}${encodeURIComponent(reviewer)}.`;
  }

  /**
   * @param {string} deferral
   * @returns {Draft}
   */
  read(deferral) {
    try {
      return JSON.parse(localStorage.getItem(this.prefix + deferral) ?? "{}").draft ?? {};
    } catch {
      return {};
    }
  }

  /**
   * @param {string} deferral
   * @param {Draft} draft
   */
  write(deferral, draft) {
    const text = JSON.stringify({ time: Date.now(), draft });
    if (text.length > DRAFT_CHARS_MAX) return;
    try {
      this.#makeRoom();
      localStorage.setItem(this.prefix + deferral, text);
    } catch {
      // A full or forbidden storage costs the draft, not the review.
    }
  }

  /** @param {string} deferral */
  remove(deferral) {
    try {
      localStorage.removeItem(this.prefix + deferral);
    } catch {
      // As above.
    }
  }

  #makeRoom() {
    const names = Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
    if (names.length < DRAFTS_MAX) return;
    const time = (/** @type {string} */ name) => Number(JSON.parse(localStorage.getItem(name) ?? "{}").time ?? 0);
    names.sort((one, other) => time(one) - time(other));
    for (const name of names.slice(0, names.length - DRAFTS_MAX + 1)) localStorage.removeItem(name);
  }
}
