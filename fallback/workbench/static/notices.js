// What is said in the bar: what is wrong and tried again, and short notes that go by themselves.

import { byId, h } from "./dom.js";

const NOTICE_SECONDS = 8;

let noticeTimer = 0;

/**
 * @param {import("./api.js").ApiError} error
 * @param {number} seconds until the next try
 * @param {boolean} kept whether an answer waits to be sent
 */
export function sayTrouble(error, seconds, kept) {
  const place = byId("trouble");
  const what = error.code === "OFFLINE" ? "Connection lost." : error.message;
  place.textContent = `${what}${kept ? " Your answer is kept and sent again." : ""} Trying again in ${Math.max(1, Math.round(seconds))} s.`;
  place.hidden = false;
}

export function calm() {
  byId("trouble").hidden = true;
}

/** @param {string} text */
export function notify(text) {
  clearTimeout(noticeTimer);
  const place = byId("notice");
  place.replaceChildren(h("span", {}, text), h("button", { type: "button", class: "quiet", onclick: () => { place.hidden = true; } }, "Dismiss"));
  place.hidden = false;
  noticeTimer = setTimeout(() => { place.hidden = true; }, NOTICE_SECONDS * 1000);
}
