// The one place that knows the vendored modules: everything else imports from here.
import { h, render, Fragment } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export { h, render, Fragment };
export { useState, useEffect, useLayoutEffect, useMemo, useRef, useCallback } from "../vendor/hooks.js";
export { signal, computed, effect, batch, untracked, useSignal, useComputed } from "../vendor/signals.js";

/** Class names from words and from flags: cls("a", {b: true}) is "a b". */
export function cls(...parts) {
  const words = [];
  for (const part of parts) {
    if (!part) continue;
    if (typeof part === "string") words.push(part);
    else for (const name of Object.keys(part)) if (part[name]) words.push(name);
  }
  return words.join(" ");
}
