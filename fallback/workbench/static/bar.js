// The bar at the top: which queue, how much waits there, how many are at work, how much is done.

import { byId, h } from "./dom.js";

/**
 * @param {string} queue
 * @param {import("./types.js").QueueState | undefined} state
 * @param {number | null} waits with what this tab holds; null: not known yet
 * @param {number} done in this tab
 */
export function showCounts(queue, state, waits, done) {
  const people = state?.reviewers ?? 0;
  byId("counters").hidden = queue === "";
  byId("waiting-count").textContent = waits?.toLocaleString() ?? "…";
  byId("done-count").textContent = done.toLocaleString();
  byId("people-count").textContent = people.toLocaleString();
  byId("people").hidden = people === 0;
  document.title = queue === "" ? "Demur" : `${waits ? `(${waits}) ` : ""}${queue} · Demur`;
}

/**
 * Offers the queues; not while somebody is choosing among the same ones.
 * @param {string[]} known
 * @param {string} queue that is open, or nothing
 */
export function showQueues(known, queue) {
  const select = byId("queue");
  const names = queue === "" || known.includes(queue) ? known : [...known, queue];
  if (document.activeElement !== select || select.options.length !== names.length) {
    select.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === queue }, known.includes(name) ? name : `${name} (nothing yet)`)));
  }
  // Where there is a list to choose from, the bar needs none.
  byId("queue-choice").hidden = queue === "" || names.length === 0;
}
