// Small parts that every page uses.
import { html, cls, useState, useEffect, useRef, signal } from "../lib/html.js";
import { copy } from "../lib/copyas.js";
import { count, clock, age, since } from "../lib/format.js";
import { pretty } from "../lib/json.js";
import { route, refine } from "../lib/route.js";

const TONES = {
  SUCCESS: "ok", FAILED: "bad", PROCESSING: "accent", QUEUED: "info", RETRY: "warn", SCHEDULED: "info",
  ALIVE: "ok", DEAD: "bad", BUSY: "accent", FREE: "", "NO WORKERS": "bad", OK: "ok", PAUSED: "warn", SEALED: "warn",
  leader: "accent", follower: "", candidate: "warn", unknown: "", ok: "ok", catching_up: "warn", disk_full: "bad", unreachable: "bad", degraded: "warn", no_quorum: "bad",
  running: "accent", success: "ok", failed: "bad", timeout: "bad", lost: "warn", released: "", cancelled: "",
};

/** A word for a state, in its colour; the word says it without the colour too. */
export function Badge({ word, tone, title }) {
  const text = String(word).replaceAll("_", " ");
  return html`<span class=${cls("badge", tone ?? TONES[word] ?? TONES[text.toUpperCase()] ?? "")} title=${title}>${text}</span>`;
}

/** A count; zeros step back, so that the others stand out. */
export const Count = ({ value, tone }) => html`<span class=${cls({ zero: !value, [`${tone}-text`]: tone && value })}>${count(value)}</span>`;

/** A moment: its age as text that follows the clock, the exact moment when pointed at. */
export function Ago({ at, ms = since(at) }) {
  if (!at && Number.isNaN(ms)) return html`<span class="zero">–</span>`;
  return html`<time class="nowrap" datetime=${at} title=${at ? `${clock(at, true)} · ${at}` : undefined}>${age(ms)}</time>`;
}

export function Copy({ text, label, small = true, title = "Copy" }) {
  const [done, setDone] = useState(false);
  const act = async (event) => {
    event.stopPropagation();
    if (await copy(typeof text === "function" ? text() : text)) { setDone(true); setTimeout(() => setDone(false), 1200); }
  };
  return html`<button type="button" class=${cls("button", "copy", { small, plain: !label, icon: !label })} title=${title} aria-label=${label ? undefined : title} onClick=${act}>
    ${done ? html`<${Icon} name="check" />` : html`<${Icon} name="copy" />`}${label}</button>`;
}

/** Text as it is, with its line breaks, and a button that copies it. */
export const Code = ({ text, keep }) => html`<div class=${cls("code", { keep })}><pre tabindex="0">${text}</pre><${Copy} text=${text} /></div>`;

/** The JSON of a user, exact to the last digit. */
export const Json = ({ raw }) => html`<${Code} text=${raw ? pretty(String(raw)) : "–"} />`;

export const Empty = ({ title, children }) => html`<div class="empty"><b>${title}</b>${children}</div>`;

export function Problem({ error }) {
  if (!error) return null;
  return html`<div class="problem" role="alert"><b>${error.title || error.code}</b> ${error.message}${error.hint && html` <span class="dim">${error.hint}</span>`}</div>`;
}

/** A list of choices of which one is pressed; `options` are [value, label]. */
export function Segments({ options, value, onChange, label, scroll }) {
  return html`<div class=${cls("segments", { scroll })} role="group" aria-label=${label}>${options.map(([key, text]) => html`
    <button type="button" key=${key} aria-pressed=${String(key === value)} onClick=${() => onChange(key)}>${text}</button>`)}</div>`;
}

export const Meter = ({ share, tone, label }) => html`<div class=${cls("meter", tone)} role="img" aria-label=${label}><i style=${{ width: `${Math.min(100, Math.max(0, 100 * share))}%` }}></i></div>`;

/** A text field whose value stands in the address under a name; typing settles before it goes there. */
export function Filter({ name, placeholder, list, width = 170 }) {
  const value = route.value.query[name] || "";
  const [text, setText] = useState(value);
  const timer = useRef(0);
  useEffect(() => setText(value), [value]);
  const type = (event) => {
    setText(event.target.value);
    clearTimeout(timer.current);
    const next = event.target.value;
    timer.current = setTimeout(() => refine({ [name]: next }), 200);
  };
  return html`<input class="input" style=${{ width: `${width}px` }} type="search" data-filter=${name} value=${text} list=${list} placeholder=${placeholder} aria-label=${placeholder}
    spellcheck=${false} autocomplete="off" onInput=${type} />`;
}

// -- toasts ----------------------------------------------------------------------------------------------------------
export const toasts = signal([]);
let made = 0;

/** Say what came of an action; refusals stay until they are closed. */
export function toast(text, { bad = false, link } = {}) {
  const one = { id: ++made, text, bad, link };
  toasts.value = [...toasts.value.slice(-3), one];
  if (!bad) setTimeout(() => drop(one.id), 5000);
}

const drop = (id) => { toasts.value = toasts.value.filter((one) => one.id !== id); };

export const Toasts = () => html`<div class="toasts" role="status" aria-live="polite">${toasts.value.map((one) => html`
  <div key=${one.id} class=${cls("toast", { bad: one.bad })}><div>${one.text}${one.link && html` <a href=${one.link[0]}>${one.link[1]}</a>`}</div>
    <button type="button" class="button plain small icon" aria-label="Close" onClick=${() => drop(one.id)}><${Icon} name="close" /></button></div>`)}</div>`;

/** Run an action of a button: its refusal becomes a toast. Resolves to whether it was done. */
export async function attempt(action, success) {
  try {
    const found = await action();
    const text = typeof success === "function" ? success(found) : success;
    if (text) toast(text);
    return true;
  } catch (error) {
    toast(`${error.title || "Not done"}: ${error.message} ${error.hint || ""}`, { bad: true });
    return false;
  }
}

// -- icons -----------------------------------------------------------------------------------------------------------
const PATHS = {
  overview: "M3 12h4l2.5-7 4 14L16 12h5", queues: "M4 6h16M4 12h16M4 18h10", tasks: "M4 6l2 2 3-4M4 13l2 2 3-4M4 20l2 2 3-4M13 6h7M13 13h7M13 20h7",
  workers: "M12 8a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM5 21v-4a4 4 0 0 1 4-4h6a4 4 0 0 1 4 4v4", topics: "M4 5h16v4H4zM4 10.5h16v4H4zM4 16h16v4H4z",
  dead: "M12 3 2.5 20h19L12 3ZM12 10v4M12 17v.5", submit: "M12 5v14M5 12h14", cluster: "M12 8a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM5 22a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM19 22a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM10.5 7.5 6.5 16M13.500 7.500l4 8.500M8 19h8",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1", check: "M5 12.500l4.500 4.500L19 7", close: "M6 6l12 12M18 6L6 18", sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.500 1.500M17.500 17.500 19 19M5 19l1.500-1.500M17.500 6.500 19 5",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500Z", auto: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18ZM12 3v18M12 7h6M12 12h9M12 17h6", help: "M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400M12 18v.5M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20Z",
  pause: "M8 5v14M16 5v14", play: "M7 4l12 8-12 8z", refresh: "M20 11a8 8 0 1 0-2 6M20 4v7h-7", down: "M6 9l6 6 6-6", right: "M9 6l6 6-6 6", star: "M12 3l2.700 5.800 6.300.8-4.600 4.300 1.200 6.300L12 17.100 6.400 20.200l1.200-6.300L3 9.600l6.300-.8z", left: "M15 6l-6 6 6 6",
};
export const Icon = ({ name }) => html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
