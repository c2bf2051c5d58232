// The shapes of the JSON that the page and its server exchange under /api; fallback/workbench/wire.py is the other side.

/** @typedef {{label: string, key: string}} LabelOption */
/** @typedef {{question: string, kind: "label"|"labels"|"boxes"|"number"|"json", labels: LabelOption[], guidelines: string, cant_tell: boolean}} Task */
/** @typedef {{label: string, x: number, y: number, width: number, height: number}} Box pixels of the subject, origin at the upper left */
/**
 * @typedef {{type: "label", label: string} | {type: "labels", labels: string[]} | {type: "boxes", boxes: Box[]}
 *   | {type: "number", number: number} | {type: "json", json: string} | {type: "cant_tell"}} Answer
 */
/** @typedef {{model: string, version: string, answer: Answer, confidence: number, shown?: number | null}} Prediction shown: how sure it is in truth, where that is another number */
/** @typedef {{view: "image"|"text"|"json"|"file", media_type: string, content: string, attributes: Record<string, string>,
 *   state?: "none"|"present"|"erased"|"lost"}} SubjectJson content in base64 */
/**
 * @typedef {{token: string, deferral: string, task: Task, subject: SubjectJson, blind: boolean,
 *   prediction: Prediction | null, lease_seconds: number, reviews_done: number, reviews_wanted: number, draft: string,
 *   tier: string, next_tier: string, resumed: boolean}} Lease tier and the one above it: empty where there is none
 */
/**
 * @typedef {{name: string, waiting: number, held: number, open: number, assisted: boolean, lease_seconds: number,
 *   reviewers: number, undo_seconds: number, next_free_seconds?: number | null,
 *   expected_wait_seconds: number | null, over: string[], tiers: [string, number][]}} QueueState over: settings whose limit is reached
 */
/**
 * @typedef {{deferral: string, open: boolean, reviews_done: number, reviews_wanted: number, model_agreed: boolean | null,
 *   prediction: Prediction | null, undo_seconds: number}} Submitted undo_seconds: how long the answer can still be taken back
 */

/**
 * @typedef {{threshold: number, evidence: number, proved: boolean, coverage: number | null, audits: number, errors: number,
 *   seen_error: number | null}} Threshold evidence: the share of the way to its proof
 */

/**
 * @typedef {{model: string, stage: string, alpha: number, delta: number, version: string, certificate: string, tau: number | null,
 *   coverage: number | null, error_bound: number | null, audits: number, audits_needed: number | null, requests: number,
 *   watermark: number, expire_second: number, thresholds: Threshold[], advice: string, miss: number | null,
 *   reviewer_error: number | null, alarm: string, segment: string, shadow: boolean}} Certificate thresholds: the strictest
 *   first; shadow: a version that answers nobody
 */

/** @typedef {{client: string, request: string, row: number, confidence: number, time: number}} Near an answer like a wrong one */
/**
 * @typedef {{model: string, deferral: string, version: string, client: string, predicted: string, answer: Answer,
 *   confidence: number, time: number, nearest: Near[]}} Amendment an automatic answer that people overturned
 */

export {};
