// The page: signs in, chooses a queue, shows item after item. Each part it joins knows nothing of the others.

import { Api, backOffSeconds, pause, toApiError } from "./api.js";
import { announce, byId, h } from "./dom.js";
import { Drafts } from "./drafts.js";
import { Holds } from "./holds.js";
import { forget, identityHeaders, storedName, storedToken, storeName, storeToken } from "./identity.js";
import { Outbox } from "./outbox.js";
import { Review } from "./review.js";
import { chooseScreen, failedScreen, idleScreen, pausedScreen, signInScreen } from "./screens.js";
import { keysOn, openSettings } from "./settings.js";
import { answerText, Verdicts } from "./verdict.js";

/** @typedef {import("./types.js").QueueState} QueueState */

const COUNT_EVERY_SECONDS = 3;
// In a tab that nobody looks at, only the title counts on.
const COUNT_HIDDEN_EVERY_SECONDS = 15;
const NOTICE_SECONDS = 8;
const HIDDEN_SECONDS_MAX = 60;
const AWAY_SECONDS_MAX = 600;
const QUEUE = "demur.queue";

const who = { name: storedName(), token: storedToken() };
const api = new Api(() => identityHeaders(who));
const verdicts = new Verdicts();
/** @type {Review | null} */
let review = null;
/** @type {QueueState[]} */
let queues = [];
let queue = "";
let done = 0;
let starts = 0;
/** @type {"name" | "token"} */
let signInKind = "name";
let activeMs = Date.now();
let noticeTimer = 0;
/** @type {Outbox | undefined} */
let outbox;
/** @type {Drafts} */
let drafts;

const holds = new Holds(api, {
  changed: show,
  lapsed(_lease, current) {
    if (current) {
      notify("Time ran out for that item, so it went back to the queue. What you had typed is kept here.");
      show();
    }
  },
  trouble,
  calm,
  failed,
});

/** @param {HTMLElement} screen */
function put(screen) {
  review?.close();
  review = null;
  const main = byId("main");
  const inside = main.contains(document.activeElement) || document.activeElement === document.body;
  main.replaceChildren(screen, ...(verdicts.any ? [verdicts.element] : []));
  if (inside) /** @type {HTMLElement | null} */ (screen.querySelector("[data-focus]") ?? screen.querySelector("h1"))?.focus({ preventScroll: true });
}

/** Shows what is held, or that nothing is. */
function show() {
  const lease = holds.current;
  count();
  if (lease === null) {
    if (holds.open && holds.empty) idle();
    return;
  }
  if (review?.lease.token === lease.token) return;
  const active = document.activeElement;
  const label = active instanceof HTMLElement ? active.dataset.label ?? "" : "";
  review?.close();
  review = new Review(lease, drafts.read(lease.deferral), { answered, drafted: (draft) => drafts.write(lease.deferral, draft), putBack });
  review.element.querySelector(".panel")?.append(verdicts.element);
  byId("main").replaceChildren(review.element);
  review.focus(label);
}

/** Says that there is nothing to do and why; what is said already stays. */
function idle() {
  const screen = idleScreen(queues.find(({ name }) => name === queue), done);
  if (byId("main").firstElementChild?.textContent !== screen.textContent) put(screen);
}

/** @type {import("./review.js").Listener["answered"]} */
function answered(answer, comment, mark) {
  const lease = holds.current;
  if (lease === null) return;
  verdicts.sending(answer, mark);
  outbox?.add(lease, answer, comment, mark);
  holds.next();
  if (holds.current === null) waiting();
  show();
}

function putBack() {
  holds.putBack();
  notify("Put back.");
  if (holds.current === null) waiting();
  show();
}

function waiting() {
  put(h("p", { class: "loading" }, "One moment…"));
}

/** @type {import("./outbox.js").Listener["taken"]} */
function taken(entry, submitted) {
  done += 1;
  drafts.remove(entry.deferral);
  verdicts.taken(entry.answer, submitted, entry.mark);
  count();
  refresh().catch(() => {});
}

/** @type {import("./outbox.js").Listener["refused"]} */
function refused(entry, error) {
  verdicts.clear();
  const said = `Your answer “${answerText(entry.answer)}” was not taken: `;
  if (error.code !== "INVALID_ARGUMENT" || entry.lease === undefined) return notify(`${said}${error.message}`);
  notify(`${said}${error.message}`);
  holds.retake(entry.lease);
  show();
}

/**
 * @param {import("./api.js").ApiError} error
 * @param {number} seconds
 */
function trouble(error, seconds) {
  if (error.code === "UNAUTHENTICATED") return signIn(error.message);
  const place = byId("trouble");
  const kept = (outbox?.length ?? 0) > 0 ? " Your answer is kept and sent again." : "";
  const what = error.code === "OFFLINE" ? "Connection lost." : error.message;
  place.textContent = `${what}${kept} Trying again in ${Math.max(1, Math.round(seconds))} s.`;
  place.hidden = false;
}

function calm() {
  byId("trouble").hidden = true;
}

/** @param {import("./api.js").ApiError} error */
function failed(error) {
  if (error.code === "UNAUTHENTICATED") return signIn(error.message);
  put(failedScreen(error.message, () => choose(queue)));
}

/** @param {string} text */
function notify(text) {
  clearTimeout(noticeTimer);
  const place = byId("notice");
  place.replaceChildren(h("span", {}, text), h("button", { type: "button", class: "quiet", onclick: () => { place.hidden = true; } }, "Dismiss"));
  place.hidden = false;
  noticeTimer = setTimeout(() => { place.hidden = true; }, NOTICE_SECONDS * 1000);
}

function count() {
  const state = queues.find(({ name }) => name === queue);
  const waits = (state?.waiting ?? 0) + holds.size;
  byId("counters").hidden = queue === "";
  byId("waiting-count").textContent = waits.toLocaleString();
  byId("done-count").textContent = done.toLocaleString();
  document.title = queue === "" ? "Demur" : `${waits > 0 ? `(${waits}) ` : ""}${queue} · Demur`;
}

/** Reads the queues' figures. */
async function refresh() {
  ({ queues } = await api.call("queues"));
  const select = byId("queue");
  const names = queues.map(({ name }) => name);
  if (queue !== "" && !names.includes(queue)) names.push(queue);
  if (document.activeElement !== select || select.options.length !== names.length) {
    select.replaceChildren(...(queue === "" ? [h("option", { value: "" }, "Choose a queue")] : []), ...names.map((name) => h("option", { value: name, selected: name === queue }, name)));
  }
  byId("queue-choice").hidden = names.length === 0;
  count();
  if (queue === "") return put(chooseScreen(queues, choose));
  if (byId("main").querySelector(".why") !== null && holds.empty) idle();
}

async function refreshForEver() {
  for (;;) {
    await pause(document.hidden ? COUNT_HIDDEN_EVERY_SECONDS : COUNT_EVERY_SECONDS);
    if (outbox === undefined) continue;
    try {
      await refresh();
      if (!holds.open) calm();
    } catch (caught) {
      const error = toApiError(caught);
      if (!error.final) trouble(error, COUNT_EVERY_SECONDS);
    }
  }
}

/** @param {string} name */
function choose(name) {
  queue = name;
  try { localStorage.setItem(QUEUE, name); } catch { /* Then it is asked again. */ }
  history.replaceState(null, "", `?queue=${encodeURIComponent(name)}`);
  waiting();
  holds.start(name);
  refresh().catch(() => {});
}

/** @param {string} fault what was wrong with the name or token that was used */
function signIn(fault) {
  if (document.getElementById("sign-in") !== null) return;
  holds.stop();
  byId("person").hidden = true;
  put(signInScreen(signInKind, fault, (text) => {
    if (signInKind === "name") storeName(who.name = text);
    else storeToken(who.token = text);
    waiting();
    void start();
  }));
}

function leave() {
  holds.stop();
  forget();
  location.assign("/");
}

/** Finds out who sits here and where to begin, until the server says. */
async function start() {
  const run = ++starts;
  for (let attempt = 0; run === starts; attempt += 1) {
    try {
      return await begin();
    } catch (caught) {
      const error = toApiError(caught);
      if (error.code === "UNAUTHENTICATED") return signIn(error.message);
      const why = error.code === "OFFLINE" ? "The server does not answer." : error.message;
      put(failedScreen(`${why} This page tries again by itself.`, () => void start()));
      await pause(backOffSeconds(error, attempt));
    }
  }
}

async function begin() {
  const session = await api.call("session");
  signInKind = session.sign_in;
  if (session.name === null) return signIn(who.token === "" && who.name === "" ? "" : session.message);
  byId("person").hidden = false;
  byId("person-name").textContent = session.name;
  if (outbox?.reviewer !== session.name) {
    drafts = new Drafts(session.name);
    outbox = new Outbox(api, session.name, { taken, refused, trouble, calm });
  }
  await refresh();
  calm();
  const wanted = queue || new URLSearchParams(location.search).get("queue") || remembered();
  if (wanted !== "") choose(wanted);
}

/** The queue that was open last, else the only one. */
function remembered() {
  const names = queues.map(({ name }) => name);
  let last = "";
  try { last = localStorage.getItem(QUEUE) ?? ""; } catch { /* Nothing is remembered. */ }
  if (names.includes(last)) return last;
  return names.length === 1 ? names[0] : "";
}

/** @param {string} why */
function rest(why) {
  holds.stop();
  put(pausedScreen(why, () => choose(queue)));
}

let hiddenTimer = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) hiddenTimer = setTimeout(() => holds.stopAhead(), HIDDEN_SECONDS_MAX * 1000);
});
for (const sign of ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"]) {
  document.addEventListener(sign, () => { activeMs = Date.now(); }, { passive: true });
}
setInterval(() => {
  if (holds.size > 0 && Date.now() - activeMs > AWAY_SECONDS_MAX * 1000) rest("You have been away for a while, so the item went back to the queue for others. What you had typed is kept here.");
}, 5_000);
addEventListener("beforeunload", (event) => { if ((outbox?.length ?? 0) > 0) event.preventDefault(); });
addEventListener("pagehide", () => holds.stop());
addEventListener("pageshow", (event) => { if (event.persisted && queue !== "") choose(queue); });
document.addEventListener("keydown", (event) => { if (document.querySelector("dialog[open]") === null) review?.key(event, keysOn()); });
byId("queue").addEventListener("change", () => { if (byId("queue").value !== "") choose(byId("queue").value); });
byId("person").addEventListener("click", () => openSettings(byId("person-name").textContent, leave));

void start();
void refreshForEver();
announce("");
