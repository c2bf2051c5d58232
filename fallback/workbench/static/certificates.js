// What is promised of each model's own answers, and how far the proof is: the numbers, and the picture of risk
// against coverage. A modal dialog behind the reviewer's name.

import { toApiError } from "./api.js";
import { h } from "./dom.js";
import { percent, risk } from "./risk.js";
import { answerText } from "./verdict.js";

/** @typedef {import("./types.js").Certificate} Certificate */
/** @typedef {import("./types.js").Amendment} Amendment */

/** @type {Record<string, string>} by stage */
const STAGES = {
  surveying: "Getting to know the model’s scores. Everything goes to people.",
  proving: "Not proved yet. Everything goes to people.",
  certified: "Proved, and in force.",
  alarmed: "Taken back: answers went wrong. Everything goes to people.",
};

/** @type {Record<string, string>} by stage, of a version that answers nobody yet */
const SHADOWED = {
  surveying: "Getting to know its scores. It answers nobody.",
  proving: "Not proved yet. It answers nobody.",
  certified: "Proved: in force as soon as it is promoted. It answers nobody yet.",
};

/** @param {import("./api.js").Api} api */
export async function openCertificates(api) {
  const place = h("div", { class: "certificates" }, h("p", { class: "muted" }, "One moment…"));
  const dialog = h("dialog", { class: "settings certificate-dialog", "aria-labelledby": "certificates-title", onclose: () => dialog.remove() },
    h("h2", { id: "certificates-title", tabIndex: -1, autofocus: true }, "What is proved"), place,
    h("div", { class: "actions" }, h("span"), h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close", h("kbd", {}, "Esc"))));
  document.body.append(dialog);
  dialog.showModal();
  try {
    /** @type {{certificates: Certificate[], amendments: Amendment[]}} */
    const { certificates, amendments } = await api.call("certificates");
    place.replaceChildren(...(certificates.length > 0 ? certificates.map(section) : [h("p", {}, "No model promises an error rate. An operator sets one with “demur certificate promise”.")]),
      ...(amendments.length > 0 ? [amended(amendments)] : []));
  } catch (error) {
    place.replaceChildren(h("p", { class: "fault", role: "alert" }, toApiError(error).message));
  }
}

/** @param {Certificate} certificate */
function section(certificate) {
  const { model, segment, shadow, version, stage, alpha, delta, alarm, advice, thresholds } = certificate;
  const title = [model, segment === "" ? "" : `segment ${segment}`, shadow ? `version ${version}, in shadow` : ""].filter((part) => part !== "").join(" · ");
  return h("section", { class: "certificate", "data-model": model, "data-stage": stage },
    h("h3", { dir: "auto" }, title),
    h("p", {}, `At most ${percent(alpha)} of the automatic answers wrong, with ${percent(1 - delta)} confidence.`),
    h("p", { class: stage === "alarmed" ? "fault" : "muted" }, (shadow ? SHADOWED : STAGES)[stage] ?? stage, alarm === "" ? "" : ` (${alarm})`),
    h("dl", { class: "facts" }, ...rows(certificate).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { dir: "auto" }, value)))),
    thresholds.length > 0 && risk(certificate),
    advice !== "" && h("p", { class: "advice" }, advice));
}

/**
 * @param {Certificate} certificate
 * @returns {[string, string][]} what is known
 */
function rows(certificate) {
  const { version, certificate: name, tau, coverage, error_bound, audits, audits_needed, requests, expire_second, miss, reviewer_error } = certificate;
  /** @type {[string, string | null][]} */
  const all = [
    ["Certificate", name === "" ? null : name],
    ["Version", version === "" ? null : version],
    ["Answers from a score of", tau === null ? null : tau.toLocaleString(undefined, { maximumSignificantDigits: 4 })],
    ["Requests answered", coverage === null ? null : percent(coverage)],
    ["Of these wrong, at most", error_bound === null ? null : percent(error_bound)],
    ["Requests counted", requests.toLocaleString()],
    ["Audits counted", audits.toLocaleString()],
    ["Audits still needed", audits_needed === null ? "nobody can tell yet" : `about ${audits_needed.toLocaleString()}`],
    ["Missed by one reviewer", miss === null ? null : percent(miss)],
    ["Reviewers wrong", reviewer_error === null ? null : percent(reviewer_error)],
    ["Ends", expire_second === 0 ? null : new Date(expire_second * 1000).toLocaleString()],
  ];
  return all.flatMap(([label, value]) => (value === null ? [] : [/** @type {[string, string]} */ ([label, value])]));
}

/**
 * Answers that audits found wrong, each with the answers most like it, which nobody has looked at.
 * @param {Amendment[]} amendments
 */
function amended(amendments) {
  return h("section", { class: "certificate amendments" },
    h("h3", {}, "Answers that were wrong"),
    h("p", { class: "muted" }, "Beneath each are the answers most like it, that nobody has looked at. Their inputs are not kept: who sent one can send it again and wish for a person."),
    ...amendments.map(({ model, deferral, client, predicted, answer, confidence, time, nearest }) => h("details", { "data-deferral": deferral },
      h("summary", { dir: "auto" }, `${model}: ${client || "somebody"} was told “${predicted}” (${confidence.toFixed(4)}), people say “${answerText(answer)}”, ${clock(time)}`),
      nearest.length > 0
        ? h("table", { class: "near" }, h("thead", {}, h("tr", {}, ...["Confidence", "When", "Client", "Request"].map((name) => h("th", { scope: "col" }, name)))),
          h("tbody", {}, ...nearest.map((near) => h("tr", {}, ...[String(near.confidence), clock(near.time), near.client || "–", `${near.request || "–"}${near.row > 0 ? `, row ${near.row}` : ""}`].map((text) => h("td", { dir: "auto" }, text))))))
        : h("p", { class: "muted" }, "Nothing like it is among the answers that gateways remember."))));
}

/** @param {number} seconds since 1970 */
function clock(seconds) {
  return new Date(seconds * 1000).toLocaleString();
}
