// The page: signs in, chooses a queue, shows item after item. Each part it joins knows nothing of the others.

import { Api, backOffSeconds, pause, toApiError } from "./api.js";
import { whenAway } from "./away.js";
import { showCounts, showQueues } from "./bar.js";
import { openFlag, openHelp, openSkip } from "./dialogs.js";
import { announce, byId, h } from "./dom.js";
import { draftOf, Drafts } from "./drafts.js";
import { Figures } from "./figures.js";
import { Holds } from "./holds.js";
import { forget, identityHeaders, storedName, storedToken, storeName, storeToken } from "./identity.js";
import { actionKeys, actionOfKey, keyName, meant } from "./keys.js";
import { calm, notify, sayTrouble } from "./notices.js";
import { Outbox } from "./outbox.js";
import { Place } from "./place.js";
import { itemView } from "./plain.js";
import { chooseScreen, failedScreen, idleScreen, notYoursScreen, pausedScreen, signInScreen, sayWhy, takenOverScreen, unknownScreen } from "./screens.js";
import { keysOn, lastQueue, openSettings, rememberQueue } from "./settings.js";
import { Undos } from "./undos.js";
import { answerText, Verdicts } from "./verdict.js";

const COUNT_EVERY_SECONDS = 3;
// In a tab that nobody looks at, only the title counts on.
const COUNT_HIDDEN_EVERY_SECONDS = 15;
const HIDDEN_SECONDS_MAX = 60;
const AWAY_SECONDS_MAX = 600;

const who = { name: storedName(), token: storedToken() };
const api = new Api(() => identityHeaders(who));
const verdicts = new Verdicts(undo);
const place = new Place();
/** @type {ReturnType<typeof itemView> | null} */
let review = null;
/** @type {string[] | null} what who sits here may answer for; null: everything */
let skills = null;
const figures = new Figures();
let queue = "";
/** Whether a queue was opened and its figures are not known since the first look for items. */
let opening = false;
let done = 0;
let starts = 0;
/** @type {"name" | "token"} */
let signInKind = "name";
/** Whether the answer on its way is to be taken back as soon as the server has it. */
let undoWanted = false;
/** @type {Outbox | undefined} */
let outbox;
/** @type {Drafts} */
let drafts;

const holds = new Holds(api, {
  changed() {
    show();
    if (opening) refresh().catch(() => {}).finally(() => { opening = false; count(); });
  },
  lapsed(_lease, current) {
    if (current) {
      notify("Time ran out for that item, so it went back to the queue. What you had typed is kept here.");
      show();
    }
  },
  leaving: (lease) => drafts.leave(lease),
  trouble,
  calm,
  failed,
  begunMs: (lease) => drafts.begunMs(lease),
  resumed: () => announce("You go on where you were."),
  takenOver() {
    place.leave();
    document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
    put(takenOverScreen(() => choose(queue, true)));
  },
});

const undos = new Undos(api, {
  ticked: (newest, seconds) => verdicts.countDown(newest, seconds),
  takenBack(undoable, lease) {
    done -= 1;
    verdicts.takenBack(undoable.deferral);
    drafts.write(lease, draftOf(undoable.answer, undoable.comment));
    announce(`Taken back: ${answerText(undoable.answer)}.`);
    holds.retake(lease);
    show();
    refresh().catch(() => {});
  },
  refused: (undoable, error) => notify(`Your answer “${answerText(undoable.answer)}” stays: ${error.message}`),
  told: (undoable, submitted) => verdicts.settled(undoable.deferral, submitted),
  trouble,
  calm,
});

/** @param {HTMLElement} screen */
function put(screen) {
  review?.close();
  review = null;
  const main = byId("main");
  const active = /** @type {HTMLElement | null} */ (document.activeElement);
  const inside = main.contains(active) || active === document.body;
  const row = active?.dataset.queue ?? "";
  main.replaceChildren(screen, ...(verdicts.any ? [verdicts.element] : []));
  const same = row === "" ? null : screen.querySelector(`[data-queue="${CSS.escape(row)}"]`);
  if (inside) /** @type {HTMLElement | null} */ (same ?? screen.querySelector("[data-focus]") ?? screen.querySelector("h1"))?.focus({ preventScroll: true });
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
  review = itemView(lease, drafts.read(lease), { answered, drafted: (draft) => drafts.write(lease, draft), act });
  verdicts.nameKey(keyName(review.keys.get("undo") ?? ""));
  review.element.querySelector(".panel")?.append(verdicts.element);
  byId("main").replaceChildren(review.element);
  review.focus(label);
}

/** Says that there is nothing to do and why; what is said already stays. */
function idle() {
  const state = figures.of(queue);
  if (state === undefined) return put(unknownScreen(queue, figures.queues, skills, choose));
  if (document.getElementById("why") === null) put(idleScreen());
  sayWhy(state, skills, done);
}

/** @type {import("./review.js").Listener["answered"]} */
function answered(answer, comment, mark) {
  const lease = holds.current;
  if (lease === null) return;
  verdicts.sending(answer, mark);
  undoWanted = false;
  drafts.leave(lease);
  outbox?.add("submit", lease, { answer, comment }, mark);
  moveOn(() => holds.next());
}

/** @param {() => void} leave what takes the item on the page away */
function moveOn(leave) {
  leave();
  if (holds.current === null) waiting();
  show();
}

/** @param {import("./keys.js").Action} action */
function act(action) {
  const lease = holds.current;
  if (action === "undo") return undo();
  if (action === "help") return help();
  if (lease === null) return;
  if (action === "back") {
    notify("Put back.");
    return moveOn(() => holds.putBack());
  }
  // Its time may run out while the dialog is open.
  const still = () => holds.current?.token === lease.token || notify("That item went back to the queue meanwhile.");
  if (action === "skip") {
    return openSkip(lease.next_tier, (reason, escalate) => {
      if (!still()) return;
      drafts.leave(lease);
      outbox?.add("skip", lease, { reason, escalate });
      notify(escalate ? `Sent to ${lease.next_tier}.` : "Skipped: it goes to somebody else.");
      moveOn(() => holds.next());
    });
  }
  openFlag((comment) => { if (still()) outbox?.add("flag", lease, { comment }); });
}

/** Takes the last answer back, if need be as soon as it has arrived. */
function undo() {
  if (outbox?.answering) undoWanted = true;
  else if (!undos.takeBack()) return notify(done === 0 ? "There is no answer of yours to take back." : "Your last answer can no longer be taken back.");
  verdicts.takingBack();
}

function help() {
  openHelp(review?.labels ?? [], review?.lease.task.kind ?? "", review?.keys ?? actionKeys([]));
}

function waiting() {
  put(h("p", { class: "loading" }, "One moment…"));
}

/** @type {import("./outbox.js").Listener["taken"]} */
function taken(entry, reply) {
  if (entry.path === "flag") {
    if (review?.lease.deferral === entry.deferral) return review.flagged();
    return notify("Flagged: those who run this queue are told.");
  }
  drafts.remove(entry.deferral);
  if (entry.path === "submit") recorded(entry, reply);
  refresh().catch(() => {});
}

/**
 * @param {import("./outbox.js").Entry} entry an answer
 * @param {import("./types.js").Submitted} submitted
 */
function recorded({ deferral, body: { answer, comment }, sentMs = 0, mark }, submitted) {
  done += 1;
  verdicts.taken(deferral, answer, submitted, mark);
  // Counted from when it was sent: so the page never promises longer than the server keeps.
  if (submitted.undo_seconds > 0) undos.add({ deferral, answer, comment, sentMs, untilMs: sentMs + submitted.undo_seconds * 1000 });
  count();
  if (!undoWanted || outbox?.answering) return;
  undoWanted = false;
  undo();
}

/** @type {import("./outbox.js").Listener["refused"]} */
function refused(entry, error) {
  if (error.takenOver && entry.lease !== undefined) {
    // Where they went on it may be answered otherwise: what was meant here is a draft again.
    if (entry.path === "submit") drafts.write(entry.lease, draftOf(entry.body.answer, entry.body.comment));
    holds.takenOver();
  }
  if (entry.path !== "submit") return notify(`${entry.path === "flag" ? "The flag" : "The skip"} was not taken: ${error.message}`);
  verdicts.clear();
  undoWanted = false;
  const why = error.takenOver ? "you went on in another place. It is kept here." : error.message;
  notify(`Your answer “${answerText(entry.body.answer)}” was not taken: ${why}`);
  if (error.code !== "INVALID_ARGUMENT" || entry.lease === undefined) return;
  holds.retake(entry.lease);
  show();
}

/**
 * @param {import("./api.js").ApiError} error
 * @param {number} seconds
 */
function trouble(error, seconds) {
  if (error.code === "UNAUTHENTICATED") signIn(error.message);
  else sayTrouble(error, seconds, (outbox?.length ?? 0) > 0);
}

/** @param {import("./api.js").ApiError} error */
function failed(error) {
  if (error.code === "UNAUTHENTICATED") return signIn(error.message);
  if (error.code === "PERMISSION_DENIED") return put(notYoursScreen(figures.of(queue), error.message, chooseAnother));
  put(failedScreen(error.message, () => choose(queue)));
}

function count() {
  showCounts(queue, figures.of(queue), opening ? null : figures.waits(queue, holds.tokens), done);
}

/** Reads the queues' figures. */
async function refresh() {
  await figures.read(api, holds.tokens);
  opening = false;
  showQueues(figures.names, queue);
  count();
  if (queue === "") return put(chooseScreen(figures.queues, skills, choose));
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

/**
 * @param {string} name
 * @param {boolean} [here] whether to go on here although another tab of this browser works there
 */
function choose(name, here = false) {
  queue = name;
  rememberQueue(name);
  byId("notice").hidden = true;
  history.replaceState(null, "", `?queue=${encodeURIComponent(name)}`);
  waiting();
  opening = true;
  showQueues(figures.names, queue);
  holds.start(name, place.mayResume(outbox, name, here));
}

function chooseAnother() {
  stop();
  queue = "";
  history.replaceState(null, "", "/");
  refresh().catch(() => {});
}

/** @param {boolean} [leaving] the page is left, perhaps only to be loaded anew */
function stop(leaving = false) {
  holds.stop(leaving);
  place.leave();
}

/** @param {string} fault what was wrong with the name or token that was used */
function signIn(fault) {
  if (document.getElementById("sign-in") !== null) return;
  stop();
  byId("person").hidden = byId("help").hidden = true;
  put(signInScreen(signInKind, fault, (text) => {
    if (signInKind === "name") storeName(who.name = text);
    else storeToken(who.token = text);
    waiting();
    void start();
  }));
}

function leave() {
  stop();
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
  skills = session.skills;
  if (session.name === null) return signIn(who.token === "" && who.name === "" ? "" : session.message);
  byId("person").hidden = false;
  byId("person-name").textContent = session.name;
  byId("help").hidden = false;
  if (outbox?.reviewer !== session.name) {
    drafts = new Drafts(api, session.name, (token) => { if (review?.lease.token === token) review.saved(); }, () => holds.takenOver());
    outbox = new Outbox(api, session.name, { taken, refused, trouble, calm });
  }
  await refresh();
  calm();
  const wanted = queue || new URLSearchParams(location.search).get("queue") || remembered();
  if (wanted !== "") choose(wanted);
}

/** The queue that was open last, else the only one. */
function remembered() {
  const last = lastQueue();
  if (figures.names.includes(last)) return last;
  return figures.names.length === 1 ? figures.names[0] : "";
}

/** @param {string} why */
function rest(why) {
  stop();
  put(pausedScreen(why, () => choose(queue)));
}

let hiddenTimer = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) hiddenTimer = setTimeout(() => holds.stopAhead(), HIDDEN_SECONDS_MAX * 1000);
  else holds.check();
});
whenAway(AWAY_SECONDS_MAX, () => {
  if (holds.size > 0) rest("You have been away for a while, so the item went back to the queue for others. What you had typed is kept here.");
});
addEventListener("beforeunload", (event) => { if ((outbox?.length ?? 0) > 0) event.preventDefault(); });
addEventListener("focus", () => holds.check());
addEventListener("pagehide", () => stop(place.alone));
addEventListener("pageshow", (event) => { if (event.persisted && queue !== "") choose(queue); });
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") !== null) return;
  if (review !== null) return review.key(event, keysOn());
  // Without an item: the last answer can still be taken back, and the help asked for.
  if (outbox === undefined || !keysOn() || !meant(event)) return;
  /** @type {HTMLElement | null} */ (document.querySelector(`.queue-row[aria-keyshortcuts="${CSS.escape(event.key)}"]`))?.click();
  const action = actionOfKey(actionKeys([]), event.key);
  if (action !== "undo" && action !== "help") return;
  event.preventDefault();
  act(action);
});
byId("help").addEventListener("click", help);
byId("queue").addEventListener("change", () => { if (byId("queue").value !== "") choose(byId("queue").value); });
byId("person").addEventListener("click", () => openSettings(byId("person-name").textContent, leave, help, api));

void start();
void refreshForEver();
announce("");
