// Calls to the page's own server: JSON in, JSON out, each with a time limit; errors carry a code the page can act on.

const TIMEOUT_MS = 30_000;
// A browser gives up to 64 KiB to requests that may outlive their page.
export const KEEPALIVE_BYTES_MAX = 60_000;
// What the server says when the request itself was judged; anything else may pass by itself.
const FINAL = new Set(["INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "FAILED_PRECONDITION", "UNIMPLEMENTED"]);

export class ApiError extends Error {
  /**
   * @param {string} code a gRPC code's name, or OFFLINE when no server answered
   * @param {string} message
   * @param {number | null} retryAfterSeconds
   * @param {string} reason where the page does something about it that others of its code do not ask for
   */
  constructor(code, message, retryAfterSeconds = null, reason = "") {
    super(message);
    this.code = code;
    this.retryAfterSeconds = retryAfterSeconds;
    this.reason = reason;
  }

  /** Whether its reviewer went on with the item in another place. */
  get takenOver() {
    return this.reason === "taken_over";
  }

  /** Whether trying the same again cannot help. */
  get final() {
    return FINAL.has(this.code);
  }
}

/**
 * What a caught value means.
 * @param {unknown} error
 * @returns {ApiError}
 */
export function toApiError(error) {
  if (error instanceof ApiError) return error;
  if (error instanceof DOMException || error instanceof TypeError) return new ApiError("OFFLINE", "The server does not answer.");
  return new ApiError("INTERNAL", String(error));
}

/** @param {Response} response */
async function errorOf(response) {
  const after = Number(response.headers.get("Retry-After"));
  const retry = after > 0 ? after : null;
  try {
    const { code, message, reason } = await response.json();
    return new ApiError(String(code), String(message), retry, String(reason ?? ""));
  } catch {
    return new ApiError(response.status >= 500 ? "UNAVAILABLE" : "INTERNAL", `The server answered ${response.status}.`, retry);
  }
}

export class Api {
  /** @param {() => Record<string, string>} credentials the headers that say who calls */
  constructor(credentials) {
    this.credentials = credentials;
  }

  /**
   * @param {string} path under /api
   * @param {object} [body] sent as JSON by POST; without it, GET
   * @param {{signal?: AbortSignal, keepalive?: boolean}} [options]
   * @returns {Promise<any>}
   * @throws {ApiError} whatever went wrong, but for an abort by the caller's signal: that passes through
   */
  async call(path, body, { signal, keepalive = false } = {}) {
    const limit = AbortSignal.timeout(TIMEOUT_MS);
    const text = body === undefined ? undefined : JSON.stringify(body);
    /** @type {RequestInit} */
    const request = {
      method: text === undefined ? "GET" : "POST",
      headers: { ...this.credentials(), "X-Demur-Page": "1", ...(text === undefined ? {} : { "Content-Type": "application/json" }) },
      body: text,
      signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
      keepalive: keepalive && new Blob([text ?? ""]).size < KEEPALIVE_BYTES_MAX,
      credentials: "omit",
      cache: "no-store",
    };
    try {
      const response = await fetch(`/api/${path}`, request);
      if (!response.ok) throw await errorOf(response);
      return await response.json();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw toApiError(error);
    }
  }
}

/**
 * Calls until the server took or refused it, always with the same request id, so that a repeat is the same call.
 * @param {Api} api
 * @param {string} path
 * @param {object} body
 * @param {{trouble: (error: ApiError, seconds: number) => void, calm: () => void}} listener
 * @returns {Promise<any>}
 * @throws {ApiError} that is final
 */
export async function callUntilJudged(api, path, body, listener) {
  const request = { ...body, request_id: requestId() };
  for (let attempt = 0; ; attempt += 1) {
    try {
      const reply = await api.call(path, request);
      listener.calm();
      return reply;
    } catch (caught) {
      const error = toApiError(caught);
      if (error.final) throw error;
      const seconds = backOffSeconds(error, attempt);
      listener.trouble(error, seconds);
      await pause(seconds);
    }
  }
}

/** An id that makes a repeated request the same request. `randomUUID` is missing where the page is not on a secure origin. */
export function requestId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Waits; the caller decides what an early end means.
 * @param {number} seconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function pause(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

/**
 * How long to wait before the next try: what the server asked for, else doubling from half a second up to ten.
 * @param {ApiError} error
 * @param {number} attempt from 0
 */
export function backOffSeconds(error, attempt) {
  return Math.min(10, Math.max(error.retryAfterSeconds ?? 0, 0.5 * 2 ** attempt));
}
