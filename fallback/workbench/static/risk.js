// What each threshold would let through and how much of that was wrong: a picture of risk against coverage, and the same
// numbers as a table.

import { h, svg } from "./dom.js";

/** @typedef {import("./types.js").Certificate} Certificate */
/** @typedef {import("./types.js").Threshold} Threshold */

const FRAME = { width: 500, height: 250, left: 54, right: 14, top: 26, bottom: 44 };
// What is more than so many times what was promised stands at the upper edge, so that the promise stays in sight.
const SHOWN_ALPHAS = 4;
const HEADS = ["Score", "Answered", "Audits", "Wrong", "Share wrong", "Proof"];
let pictures = 0;

/**
 * @param {number} share
 * @returns {string} in percent, as exact as it is small
 */
export function percent(share) {
  return `${(100 * share).toLocaleString(undefined, { maximumSignificantDigits: 3 })} %`;
}

/** @param {number} threshold */
function score(threshold) {
  return threshold.toLocaleString(undefined, { maximumSignificantDigits: 4 });
}

/**
 * @param {Certificate} certificate with thresholds
 * @returns {HTMLElement} the picture, where there is something to draw, and the table
 */
export function risk(certificate) {
  const points = certificate.thresholds.filter(({ coverage, seen_error }) => coverage !== null && seen_error !== null);
  return h("figure", {}, points.length > 0 && picture(certificate, points), h("figcaption", { class: "muted" },
    "Share of wrong answers that audits found, by the share of requests that a score would let through. Full points are proved; the bar at the one in force goes up to what can at most be wrong; an arrowhead stands for more than the scale shows."),
  table(certificate));
}

/**
 * @param {Certificate} certificate
 * @param {Threshold[]} points those with both numbers
 */
function picture({ alpha, tau, error_bound, thresholds, stage, shadow }, points) {
  const { width, height, left, right, top, bottom } = FRAME;
  const most = Math.min(SHOWN_ALPHAS * alpha, Math.max(1.5 * alpha, 1.1 * (error_bound ?? 0), ...points.map(({ seen_error }) => 1.1 * (seen_error ?? 0))));
  const x = (/** @type {number} */ share) => left + share * (width - left - right);
  const y = (/** @type {number} */ share) => height - bottom - (Math.min(share, most) / most) * (height - top - bottom);
  const proved = thresholds.filter((each) => each.proved).length;
  const inForce = points.find(({ threshold }) => threshold === tau);
  const id = `risk-${(pictures += 1)}`;
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "risk", role: "img", "aria-labelledby": `${id}-title ${id}-desc` },
    text("title", { id: `${id}-title` }, `Risk against coverage: ${proved} of ${thresholds.length} thresholds proved`),
    text("desc", { id: `${id}-desc` }, description({ alpha, tau, error_bound, stage, shadow }, inForce)),
    ...axes(x, y, most));
  drawn.append(svg("line", { x1: x(0), x2: x(1), y1: y(alpha), y2: y(alpha), class: "promise" }),
    text("text", { x: x(0) + 4, y: y(alpha) - 5, class: "promised" }, `promised: at most ${percent(alpha)}`),
    svg("polyline", { points: points.map((each) => `${x(each.coverage ?? 0)},${y(each.seen_error ?? 0)}`).join(" "), class: "course" }));
  if (inForce !== undefined) {
    const at = x(inForce.coverage ?? 0);
    drawn.append(svg("line", { x1: at, x2: at, y1: y(0), y2: top, class: "in-force" }),
      text("text", { x: at, y: top - 8, "text-anchor": at > width / 2 ? "end" : "start", class: "tau-name" }, `${shadow ? "would be in force" : "in force"}: score ${score(inForce.threshold)}`));
    if (error_bound !== null) drawn.append(svg("path", { d: `M${at} ${y(inForce.seen_error ?? 0)}V${y(error_bound)}M${at - 6} ${y(error_bound)}h12`, class: "bound" }));
  }
  for (const each of points) {
    const kind = `${each.proved ? "proved" : "open"}${each === inForce ? " tau" : ""}`;
    const [across, up] = [x(each.coverage ?? 0), y(each.seen_error ?? 0)];
    drawn.append((each.seen_error ?? 0) > most ? svg("path", { d: `M${across - 5} ${up + 5}h10l-5 -10z`, class: `point ${kind}` })
      : svg("circle", { cx: across, cy: up, r: each === inForce ? 6 : 4, class: `point ${kind}` }));
  }
  return drawn;
}

/**
 * @param {(share: number) => number} x
 * @param {(share: number) => number} y
 * @param {number} most
 * @returns {SVGElement[]}
 */
function axes(x, y, most) {
  const across = [0, 0.25, 0.5, 0.75, 1].map((share) => text("text", { x: x(share), y: y(0) + 17, "text-anchor": share === 1 ? "end" : "middle" }, percent(share)));
  const up = [0, most / 2, most].flatMap((share) => [
    svg("line", { x1: x(0), x2: x(1), y1: y(share), y2: y(share), class: "rule" }),
    text("text", { x: x(0) - 6, y: y(share) + 4, "text-anchor": "end" }, `${(100 * share).toLocaleString(undefined, { maximumSignificantDigits: 2 })} %`)]);
  return [...up, ...across, text("text", { x: (x(0) + x(1)) / 2, y: y(0) + 36, "text-anchor": "middle" }, "requests answered"),
    text("text", { x: x(0) - 48, y: FRAME.top - 12 }, "of these wrong")];
}

/**
 * @param {Pick<Certificate, "alpha" | "tau" | "error_bound" | "stage" | "shadow">} certificate
 * @param {Threshold | undefined} inForce
 * @returns {string} what the picture says, for who does not see it
 */
function description({ alpha, tau, error_bound, stage, shadow }, inForce) {
  const promised = `Promised: at most ${percent(alpha)} wrong.`;
  if (tau === null || inForce === undefined) return `${promised} ${stage === "alarmed" ? "An alarm took the proof back." : "No threshold is in force."} The table has the numbers.`;
  const bound = error_bound === null ? "" : `, and at most ${percent(error_bound)} are`;
  return `${promised} ${shadow ? "In force once it is promoted" : "In force"}: a score of ${score(tau)}, which answers ${percent(inForce.coverage ?? 0)} of the requests; ${percent(inForce.seen_error ?? 0)} of the audited were wrong${bound}. The table has all numbers.`;
}

/** @param {Certificate} certificate */
function table({ thresholds, tau, shadow }) {
  const known = (/** @type {number | null} */ share) => (share === null ? "–" : `${(100 * share).toLocaleString(undefined, { maximumFractionDigits: share < 0.1 ? 2 : 1 })} %`);
  return h("div", { class: "wide", tabIndex: 0, role: "region", "aria-label": "Numbers by score" }, h("table", { class: "thresholds" },
    h("thead", {}, h("tr", {}, ...HEADS.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, ...thresholds.map((each) => h("tr", { class: each.threshold === tau ? "tau" : undefined },
      h("th", { scope: "row" }, score(each.threshold)), h("td", {}, known(each.coverage)), h("td", {}, each.audits.toLocaleString()),
      h("td", {}, each.errors.toLocaleString()), h("td", {}, known(each.seen_error)),
      h("td", {}, way(each), each.threshold === tau && !shadow ? "in force" : each.proved ? "proved" : percent(Math.floor(100 * each.evidence) / 100)))))));
}

/** @param {Threshold} threshold */
function way({ evidence, proved }) {
  return svg("svg", { viewBox: "0 0 48 8", class: "way", "aria-hidden": "true" }, svg("rect", { width: 48, height: 8, rx: 2, class: "whole" }),
    svg("rect", { width: 48 * evidence, height: 8, rx: 2, class: proved ? "gone proved" : "gone" }));
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {string} words
 */
function text(tag, attributes, words) {
  const element = svg(tag, attributes);
  element.textContent = words;
  return element;
}
