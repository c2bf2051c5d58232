// The page when no item is on it: who are you, which queue, nothing to do, paused, failed.

import { byId, counted, h } from "./dom.js";
import { either, expectedWait, mine, overWords, skilled, whyNothing } from "./queues.js";

/** @typedef {import("./types.js").QueueState} QueueState */

/**
 * @param {string} title
 * @param {...any} children
 * @returns {HTMLElement}
 */
function card(title, ...children) {
  return h("section", { class: "card" }, h("h1", { tabIndex: -1 }, title), ...children);
}

/**
 * @param {"name" | "token"} kind
 * @param {string} fault what was wrong with the last try
 * @param {(text: string) => void} done
 */
export function signInScreen(kind, fault, done) {
  const name = kind === "name";
  const field = h("input", {
    class: "field", id: "sign-in", type: name ? "text" : "password", autocomplete: name ? "nickname" : "off", spellcheck: false, required: true,
    maxLength: name ? 64 : 1024, "data-focus": "", "aria-describedby": "sign-in-help sign-in-fault",
  });
  const form = h("form", {
    class: "form", onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      if (field.value.trim() !== "") done(field.value.trim());
    },
  },
  h("label", { for: "sign-in" }, name ? "Your name" : "Your token"), field,
  h("p", { class: "fault", id: "sign-in-fault", role: "alert" }, fault),
  h("button", { class: "primary wide" }, "Start"));
  return card(name ? "Who is reviewing?" : "Sign in", form, h("p", { class: "muted", id: "sign-in-help" }, name
    ? "It stands beside your answers, and keeps one item from being judged twice by the same person. This browser remembers it."
    : "An operator gives it to you. It is kept in this tab and forgotten when you close it."));
}

/**
 * @param {QueueState[]} queues
 * @param {string[] | null} skills of who chooses; null for every one
 * @param {(name: string) => void} choose
 */
export function chooseScreen(queues, skills, choose) {
  if (queues.length === 0) {
    return card("No queue yet", h("p", {}, "A queue appears here with the first request that a model leaves to a person."), h("p", { class: "muted" }, "This page looks again by itself."));
  }
  return card("Which queue?", queueList(queues, skills, choose));
}

/**
 * A link led to a queue that is not there, or not yet.
 * @param {string} name
 * @param {QueueState[]} queues that are there
 * @param {string[] | null} skills
 * @param {(name: string) => void} choose
 */
export function unknownScreen(name, queues, skills, choose) {
  return card("No such queue", h("p", { class: "why" }, `Nothing was ever parked in “${name}”.`),
    queues.length > 0 ? h("p", {}, "Is its name right? These are there:") : h("p", {}, "Is its name right? No queue is there yet."),
    queues.length > 0 && queueList(queues, skills, choose),
    h("p", { class: "muted watching" }, h("span", { class: "pulse", "aria-hidden": "true" }), "Should an item come, it appears here by itself."));
}

/**
 * @param {QueueState[]} queues
 * @param {string[] | null} skills
 * @param {(name: string) => void} choose
 */
function queueList(queues, skills, choose) {
  return h("ul", { class: "queue-list" }, ...queues.map((queue, index) => h("li", {}, queueRow(queue, index < 9 ? String(index + 1) : "", skills, choose))));
}

/**
 * @param {QueueState} queue
 * @param {string} key that chooses it
 * @param {string[] | null} skills
 * @param {(name: string) => void} choose
 */
function queueRow(queue, key, skills, choose) {
  const parts = [queue.held > 0 && `${queue.held.toLocaleString()} held`, queue.reviewers > 0 && `${counted(queue.reviewers, "person", "people")} at work`,
    queue.assisted ? "assisted" : "blind", expectedWait(queue)];
  const tiers = queue.tiers.map(([tier, waiting]) => h("span", { class: skilled(tier, skills) ? "tier" : "tier others" }, h("span", { dir: "auto" }, tier), " ", h("b", {}, waiting.toLocaleString())));
  return h("button", { type: "button", class: "queue-row", "data-queue": queue.name, "aria-keyshortcuts": key === "" ? null : key, onclick: () => choose(queue.name) },
    h("span", { class: "queue-name" }, key !== "" && h("kbd", {}, key), h("span", {}, queue.name)),
    h("span", { class: queue.waiting > 0 ? "queue-count" : "queue-count muted" }, `${queue.waiting.toLocaleString()} waiting`),
    h("span", { class: "muted queue-more" }, parts.filter((part) => part !== false && part !== "").join(" · ")),
    tiers.length > 0 && h("span", { class: "queue-more chips" }, h("span", { class: "unseen" }, "Waiting at each tier: "), ...tiers),
    queue.over.length > 0 && h("span", { class: "queue-more chips" }, ...queue.over.map((limit) => h("span", { class: "tag" }, overWords(limit)))),
    mine(queue, skills).length === 0 && tiers.length > 0 && h("span", { class: "muted queue-more" }, `Takes a skill you do not have: ${either(queue.tiers.map(([tier]) => tier))}.`));
}

/** That there is nothing to do; `sayWhy` fills it in. */
export function idleScreen() {
  return card("Nothing to do right now", h("p", { class: "why", id: "why" }),
    h("p", { class: "muted watching" }, h("span", { class: "pulse", "aria-hidden": "true" }), "The next item appears here by itself."),
    h("p", { class: "muted", id: "why-people" }), h("p", { class: "muted", id: "why-done" }));
}

let freesMs = 0;
let counting = 0;

/**
 * Says why there is nothing to do, and counts down to when there may be something.
 * @param {QueueState} queue
 * @param {string[] | null} skills of who looks; null for every one
 * @param {number} done
 */
export function sayWhy(queue, skills, done) {
  clearInterval(counting);
  freesMs = Date.now() + (queue.next_free_seconds ?? 0) * 1000;
  const known = typeof queue.next_free_seconds === "number";
  const say = () => {
    const place = document.getElementById("why");
    if (place === null) return clearInterval(counting);
    const text = whyNothing(queue, skills, known ? (freesMs - Date.now()) / 1000 : undefined);
    if (place.textContent !== text) place.textContent = text;
  };
  say();
  if (known) counting = setInterval(say, 250);
  const people = queue.reviewers;
  byId("why-people").textContent = people === 0 ? "" : `${counted(people, "person is", "people are")} at work in this queue.`;
  byId("why-done").textContent = done === 0 ? "" : `You have answered ${counted(done, "item", "items")} in this tab. Thank you.`;
}

/**
 * @param {string} why
 * @param {() => void} goOn
 */
export function pausedScreen(why, goOn) {
  return card("Paused", h("p", {}, why), h("button", { type: "button", class: "primary wide", "data-focus": "", onclick: goOn }, "Go on"));
}

/**
 * @param {string} why
 * @param {() => void} again
 */
export function failedScreen(why, again) {
  return card("This did not work", h("p", {}, why), h("button", { type: "button", class: "primary wide", "data-focus": "", onclick: again }, "Try again"));
}

/** @param {() => void} goOn */
export function takenOverScreen(goOn) {
  return card("You went on in another place", h("p", {}, "What you had here is held in another tab, browser or machine now, under your name. What you had typed is kept, and what you answer there counts."),
    h("button", { type: "button", class: "primary wide", "data-focus": "", onclick: goOn }, "Go on here", h("kbd", {}, "Enter")),
    h("p", { class: "muted" }, "The other place stops then. If it was not you, tell those who run this queue."));
}

/**
 * The queue is for others.
 * @param {QueueState | undefined} queue
 * @param {string} why what the server said
 * @param {() => void} others chooses another queue
 */
export function notYoursScreen(queue, why, others) {
  const tiers = (queue?.tiers ?? []).map(([tier]) => tier);
  const said = tiers.length === 0 ? why : `“${queue?.name}” is for reviewers with the skill ${either(tiers)}, and you do not have ${tiers.length === 1 ? "it" : "any of them"}. Those who run this queue say who has which skill.`;
  return card("Nothing here for you", h("p", { class: "not-yours" }, said),
    h("button", { type: "button", class: "primary wide", "data-focus": "", onclick: others }, "Choose another queue"));
}
