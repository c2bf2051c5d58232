// A JSON text, re-indented token by token, so that what a person sees is what was sent: 1.0 stays 1.0 and a number of
// twenty digits keeps them all.

import { counted, h } from "./dom.js";

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/gu;
const FOLD_CHARS = 2_000;
const TOKENS_MAX = 50_000;
// What is nested deeper nobody reads as a tree, and walking it could take more stack than there is.
const DEPTH_MAX = 200;

/** @typedef {{open: string, entries: {key: string | null, value: JsonNode}[], chars: number} | string} JsonNode */

/**
 * Reads a JSON text that JSON.parse has accepted into a tree of its own tokens.
 * @param {string} text
 * @returns {JsonNode | null} null where the text is no JSON, or too large or too deep for a tree
 */
export function readJson(text) {
  try {
    JSON.parse(text);
    const tokens = text.match(TOKEN) ?? [];
    return tokens.length > TOKENS_MAX || depthOf(tokens) > DEPTH_MAX ? null : readValue(tokens, { at: 0 });
  } catch {
    return null;
  }
}

/** @param {string[]} tokens */
function depthOf(tokens) {
  let [depth, deepest] = [0, 0];
  for (const token of tokens) {
    if (token === "{" || token === "[") deepest = Math.max(deepest, ++depth);
    else if (token === "}" || token === "]") depth -= 1;
  }
  return deepest;
}

/**
 * @param {string[]} tokens
 * @param {{at: number}} cursor
 * @returns {JsonNode}
 */
function readValue(tokens, cursor) {
  const open = tokens[cursor.at++];
  if (open !== "{" && open !== "[") return open;
  const close = open === "{" ? "}" : "]";
  /** @type {{key: string | null, value: JsonNode}[]} */
  const entries = [];
  let chars = 2;
  while (tokens[cursor.at] !== close) {
    if (tokens[cursor.at] === ",") cursor.at += 1;
    let key = null;
    if (open === "{") {
      key = tokens[cursor.at];
      cursor.at += 2;
    }
    const value = readValue(tokens, cursor);
    entries.push({ key, value });
    chars += (key?.length ?? 0) + (typeof value === "string" ? value.length : value.chars) + 4;
  }
  cursor.at += 1;
  return { open, entries, chars };
}

/**
 * Shows a tree; objects and lists fold, and start folded below the first level where the whole is large.
 * @param {JsonNode} root
 * @returns {HTMLElement}
 */
export function jsonView(root) {
  const large = typeof root !== "string" && root.chars > FOLD_CHARS;
  return h("div", { class: "json", dir: "ltr" }, ...show(root, 0, large, ""));
}

/**
 * @param {JsonNode} node
 * @param {number} depth
 * @param {boolean} large
 * @param {string} after
 * @param {Node[]} before
 * @returns {Node[]}
 */
function show(node, depth, large, after, before = []) {
  if (typeof node === "string") return [h("div", {}, ...before, h("span", { class: kindOf(node) }, node), after)];
  const close = node.open === "{" ? "}" : "]";
  if (node.entries.length === 0) return [h("div", {}, ...before, `${node.open}${close}${after}`)];
  const size = node.open === "{" ? counted(node.entries.length, "field", "fields") : counted(node.entries.length, "entry", "entries");
  const last = node.entries.length - 1;
  const inside = node.entries.flatMap(({ key, value }, index) =>
    show(value, depth + 1, large, index < last ? "," : "", key === null ? [] : [h("span", { class: "json-key" }, key), ": "]));
  return [
    h("details", { open: !large || depth === 0 },
      h("summary", {}, ...before, node.open, h("span", { class: "json-size" }, ` ${size} ${close}${after}`)),
      h("div", { class: "json-inside" }, ...inside),
      h("div", { class: "json-close" }, `${close}${after}`)),
  ];
}

/** @param {string} token */
function kindOf(token) {
  if (token.startsWith('"')) return "json-text";
  return /^[-\d]/u.test(token) ? "json-number" : "json-word";
}
