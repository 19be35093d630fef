// The one place that knows the vendored modules: everything else imports from here.
import { h, render, Fragment } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;

/** Text that turns the direction of what stands around it would show other words than are there: it is shown as an escape. */
export function shown(text) {
  return text.replace(TURNING, (char) => `\\u${char.charCodeAt(0).toString(16)}`);
}

export const html = htm.bind((type, props, ...children) =>
  h(type, props, ...children.map((child) => (typeof child === "string" ? shown(child) : child))));
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
