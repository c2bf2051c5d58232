// What somebody has begun to answer. It goes to the server with the lease, so that it survives a crash, a lapsed lease
// and a change of the machine; the copy in this browser is the second line, for when the server is away. Of the two the
// younger one counts. Here they lie by reviewer and deferral; the oldest go first.

import { backOffSeconds, pause, requestId, toApiError } from "./api.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Lease} Lease */
/** @typedef {{answer?: any, comment?: string, was?: Answer}} Draft was: the answer that its giver took back */

const PREFIX = "demur.draft.";
const DRAFTS_MAX = 30;
export const DRAFT_BYTES_MAX = 65_536;
// What is typed meanwhile goes with it.
const SAVE_EVERY_SECONDS = 1;

/**
 * What a form needs to show an answer as it was given.
 * @param {Answer} answer
 * @param {string} comment
 * @returns {Draft}
 */
export function draftOf(answer, comment) {
  const begun = () => {
    switch (answer.type) {
      case "labels": return answer.labels;
      case "boxes": return answer.boxes;
      case "number": return String(answer.number);
      case "json": return answer.json;
      default: return undefined;
    }
  };
  return { answer: begun(), comment, was: answer };
}

/**
 * @param {string | null} text
 * @returns {{time: number, draft: Draft}}
 */
function readDraft(text) {
  try {
    const { time, draft } = JSON.parse(text ?? "{}");
    return { time: Number(time) || 0, draft: typeof draft === "object" && draft !== null ? draft : {} };
  } catch {
    return { time: 0, draft: {} };
  }
}

export class Drafts {
  /** @type {Map<string, string>} by token, what the server does not have yet */
  #unsaved = new Map();
  #saving = false;

  /**
   * @param {import("./api.js").Api} api
   * @param {string} reviewer
   * @param {(token: string) => void} saved
   * @param {() => void} takenOver what it belongs to is held in another place now
   */
  constructor(api, reviewer, saved, takenOver) {
    this.api = api;
    this.saved = saved;
    this.takenOver = takenOver;
    this.prefix = `${PREFIX}${encodeURIComponent(reviewer)}.`;
  }

  /**
   * @param {Lease} lease
   * @returns {number} when its draft was last changed; 0 where nothing was begun
   */
  begunMs(lease) {
    return Math.max(readDraft(lease.draft).time, readDraft(this.#stored(lease.deferral)).time);
  }

  /**
   * @param {Lease} lease
   * @returns {Draft}
   */
  read(lease) {
    const [theirs, here] = [readDraft(lease.draft), readDraft(this.#stored(lease.deferral))];
    return here.time > theirs.time ? here.draft : theirs.draft;
  }

  /**
   * @param {Lease} lease
   * @param {Draft} draft
   */
  write(lease, draft) {
    const text = JSON.stringify({ time: Date.now(), draft });
    if (new Blob([text]).size > DRAFT_BYTES_MAX) return;
    try {
      this.#makeRoom();
      localStorage.setItem(this.prefix + lease.deferral, text);
    } catch {
      // A full or forbidden storage costs the second line, not the review.
    }
    this.#unsaved.set(lease.token, text);
    void this.#save();
  }

  /**
   * The item has been answered or left: nothing of it is to be saved any more.
   * @param {Lease} lease
   * @returns {string} what was not saved
   */
  leave(lease) {
    const text = this.#unsaved.get(lease.token) ?? "";
    this.#unsaved.delete(lease.token);
    return text;
  }

  /** @param {string} deferral */
  remove(deferral) {
    try {
      localStorage.removeItem(this.prefix + deferral);
    } catch {
      // As above.
    }
  }

  async #save() {
    if (this.#saving) return;
    this.#saving = true;
    for (let attempt = 0; this.#unsaved.size > 0; ) {
      await pause(SAVE_EVERY_SECONDS);
      const [token, text] = [...this.#unsaved][0] ?? ["", ""];
      if (token === "") continue;
      try {
        await this.api.call("draft", { token, draft: text, request_id: requestId() });
        attempt = 0;
        this.#done(token, text);
        if (!this.#unsaved.has(token)) this.saved(token);
      } catch (caught) {
        const error = toApiError(caught);
        // Who is told of a lost connection hears it from the lease; what is begun still lies here.
        if (error.final) this.#done(token, text);
        else await pause(backOffSeconds(error, attempt++));
        if (error.takenOver) this.takenOver();
      }
    }
    this.#saving = false;
  }

  /**
   * @param {string} token
   * @param {string} text
   */
  #done(token, text) {
    if (this.#unsaved.get(token) === text) this.#unsaved.delete(token);
  }

  /** @param {string} deferral */
  #stored(deferral) {
    try {
      return localStorage.getItem(this.prefix + deferral);
    } catch {
      return null;
    }
  }

  #makeRoom() {
    const names = Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
    if (names.length < DRAFTS_MAX) return;
    const time = (/** @type {string} */ name) => readDraft(localStorage.getItem(name)).time;
    names.sort((one, other) => time(one) - time(other));
    for (const name of names.slice(0, names.length - DRAFTS_MAX + 1)) localStorage.removeItem(name);
  }
}
