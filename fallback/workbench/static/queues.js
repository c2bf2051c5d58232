// What a queue's figures mean in words: how long one waits there, which limit it is at, why there is nothing to do now.

import { counted } from "./dom.js";
import { clock } from "./verdict.js";

/** @typedef {import("./types.js").QueueState} QueueState */

/** @type {Record<string, string>} by the setting whose limit is reached */
const OVER = {
  depth_max: "over its depth",
  open_max: "full",
  budget_per_hour: "over its hourly budget",
  bytes_max: "no room for more content",
  drafts_bytes_max: "no room for more drafts",
  outbox_max: "too many outcomes not told yet",
};

/** @param {string} setting */
export function overWords(setting) {
  return OVER[setting] ?? `at its limit ${setting}`;
}

/**
 * How long an item that came now would wait, roughly; nothing where nobody can say or nothing waits.
 * @param {QueueState} queue
 */
export function expectedWait(queue) {
  const seconds = queue.expected_wait_seconds;
  if (seconds === null || queue.waiting === 0) return "";
  const minutes = Math.round(seconds / 60);
  if (minutes < 1) return "under 1 min wait";
  if (minutes < 100) return `about ${minutes} min wait`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `about ${hours} h wait` : `about ${Math.round(hours / 24).toLocaleString()} days wait`;
}

/**
 * @param {string} tier
 * @param {string[] | null} skills null for every one
 */
export function skilled(tier, skills) {
  return skills === null || skills.includes(tier);
}

/**
 * The tiers that somebody may answer for.
 * @param {QueueState} queue
 * @param {string[] | null} skills
 */
export function mine(queue, skills) {
  return queue.tiers.filter(([tier]) => skilled(tier, skills));
}

/** @param {string[]} names */
export function either(names) {
  const quoted = names.map((name) => `“${name}”`);
  return quoted.length < 2 ? quoted.join("") : `${quoted.slice(0, -1).join(", ")} or ${quoted[quoted.length - 1]}`;
}

/**
 * Why there is nothing to do for somebody.
 * @param {QueueState} queue
 * @param {string[] | null} skills
 * @param {number} [freeSeconds] until the next held item frees; left out where nobody knows
 */
export function whyNothing(queue, skills, freeSeconds) {
  if (queue.open === 0) return "The queue is empty.";
  const others = queue.tiers.filter(([tier, waiting]) => waiting > 0 && !skilled(tier, skills));
  const theirs = others.reduce((sum, [, waiting]) => sum + waiting, 0);
  const higher = theirs === 0 ? "" : `${counted(theirs, "item waits", "items wait")} for the skill ${either(others.map(([tier]) => tier))}, which you do not have.`;
  const rest = waitsOrHeld(queue, queue.waiting - theirs, freeSeconds);
  if (rest !== "") return higher === "" ? rest : `${rest} ${higher}`;
  return higher !== "" ? higher : `${counted(queue.open, "item has", "items have")} been answered; the time to undo still runs.`;
}

/**
 * @param {QueueState} queue
 * @param {number} waiting that this person has the skill for
 * @param {number} [freeSeconds]
 */
function waitsOrHeld(queue, waiting, freeSeconds) {
  if (waiting > 0) return `${counted(waiting, "item waits", "items wait")} for another person’s view: you have already answered or skipped.`;
  if (queue.held === 0) return "";
  const items = `${counted(queue.held, "item is", "items are")} held by others; `;
  if (freeSeconds === undefined) return `${items}what they leave comes back.`;
  return `${items}${queue.held === 1 ? "it" : "the next"} frees in ${clock(freeSeconds)} unless they go on.`;
}
