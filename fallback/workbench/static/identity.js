// Who sits here. A name is remembered in this browser; a token only in this tab, so that closing it signs out.

const NAME = "demur.name";
const TOKEN = "demur.token";

/** @typedef {{signIn: "name" | "token", name: string}} Identity */

/**
 * Storage may be switched off in a browser; the page then works and forgets.
 * @param {() => void} write
 */
function quietly(write) {
  try {
    write();
  } catch {
    // Nothing to do: what could not be stored is asked again next time.
  }
}

/** @returns {string} */
export function storedName() {
  try {
    return localStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

/** @returns {string} */
export function storedToken() {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} name */
export function storeName(name) {
  quietly(() => localStorage.setItem(NAME, name));
}

/** @param {string} token */
export function storeToken(token) {
  quietly(() => sessionStorage.setItem(TOKEN, token));
}

export function forget() {
  quietly(() => localStorage.removeItem(NAME));
  quietly(() => sessionStorage.removeItem(TOKEN));
}

/**
 * The headers that prove or say who calls.
 * @param {{name: string, token: string}} who
 * @returns {Record<string, string>}
 */
export function identityHeaders({ name, token }) {
  if (token !== "") return { Authorization: `Bearer ${token}` };
  return name === "" ? {} : { "X-Demur-Identity": encodeURIComponent(name) };
}
