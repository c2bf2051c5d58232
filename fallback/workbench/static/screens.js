// The page when no item is on it: who are you, which queue, nothing to do, paused, failed.

import { counted, h } from "./dom.js";

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
 * @param {(name: string) => void} choose
 */
export function chooseScreen(queues, choose) {
  if (queues.length === 0) {
    return card("No queue yet", h("p", {}, "A queue appears here with the first request that a model leaves to a person."), h("p", { class: "muted" }, "This page looks again by itself."));
  }
  return card("Which queue?", h("ul", { class: "queue-list" }, ...queues.map((queue) => h("li", {}, h("button", { type: "button", class: "queue-row", onclick: () => choose(queue.name) },
    h("span", { class: "queue-name" }, queue.name),
    h("span", { class: queue.waiting > 0 ? "queue-count" : "queue-count muted" }, `${queue.waiting.toLocaleString()} waiting`),
    h("span", { class: "muted queue-more" }, [queue.held > 0 ? `${queue.held.toLocaleString()} held` : "", queue.assisted ? "assisted" : "blind"].filter((part) => part !== "").join(" · ")))))));
}

/**
 * Why there is nothing to do, in one sentence.
 * @param {QueueState | undefined} queue
 */
export function whyNothing(queue) {
  if (queue === undefined || queue.open === 0) return "The queue is empty.";
  if (queue.waiting > 0) return `${counted(queue.waiting, "item waits", "items wait")} for another person’s view: you have already answered.`;
  if (queue.held > 0) return `${counted(queue.held, "item is", "items are")} held by others; what they leave comes back.`;
  return `${counted(queue.open, "item is", "items are")} being settled.`;
}

/**
 * @param {QueueState | undefined} queue
 * @param {number} done
 */
export function idleScreen(queue, done) {
  return card("Nothing to do right now", h("p", { class: "why" }, whyNothing(queue)),
    h("p", { class: "muted watching" }, h("span", { class: "pulse", "aria-hidden": "true" }), "The next item appears here by itself."),
    done > 0 && h("p", { class: "muted" }, `You have answered ${counted(done, "item", "items")} in this tab. Thank you.`));
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
