// Whether somebody is here: who is, touches a key, the mouse or the screen now and then.

const LOOK_MS = 5_000;

/**
 * Calls again and again as long as nobody was here for so long.
 * @param {number} seconds
 * @param {() => void} away
 */
export function whenAway(seconds, away) {
  let activeMs = Date.now();
  for (const sign of ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"]) {
    document.addEventListener(sign, () => { activeMs = Date.now(); }, { passive: true });
  }
  setInterval(() => { if (Date.now() - activeMs > seconds * 1000) away(); }, LOOK_MS);
}
