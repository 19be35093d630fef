// The one stream of events between page and node, and what the page knows from it. The stream is closed while nobody
// looks, and opened again by itself; when the node says goodbye or stays silent, another one is looked for.
import { signal, computed } from "./html.js";
import { nodeSays, now, nowMs } from "./format.js";
import { parse } from "./json.js";

/** An overview comes every second. */
const LOST_AFTER_MS = 3500;

/** What GET /v1/overview says, as it last came; null before that. */
export const overview = signal(null);
/** "connecting", "live", "paused" or "lost". */
export const state = signal("connecting");
/** When the last overview came, in ms of the calendar. */
export const heardAt = signal(null);
/** The other nodes' addresses, of a node that said it stops. */
export const goodbye = signal(null);
export const pausedByHand = signal(false);
export const age_ms = computed(() => (heardAt.value === null ? null : Math.max(0, now.value - heardAt.value)));

const listeners = { tasks: new Set(), topics: new Set(), reset: new Set() };
let source = null, opened = false, silentSince = Date.now();

/** Call back with what comes on a channel ("tasks", "topics", "reset"); returns how to stop that. */
export function listen(channel, callback) {
  listeners[channel].add(callback);
  return () => listeners[channel].delete(callback);
}

function tell(channel, data) {
  for (const callback of [...listeners[channel]]) callback(data);
}

function take(text) {
  const seen = parse(text);
  nodeSays(seen.made_at_ms);
  overview.value = seen;
  heardAt.value = now.value = nowMs();
  silentSince = Date.now();
  goodbye.value = null;
  state.value = "live";
}

function open() {
  close();
  if (document.hidden || pausedByHand.value) { state.value = "paused"; return; }
  if (state.value !== "lost") state.value = "connecting";
  source = new EventSource("/v1/events?channels=overview,tasks,topics");
  source.addEventListener("overview", (event) => take(event.data));
  source.addEventListener("tasks", (event) => tell("tasks", parse(event.data)));
  source.addEventListener("topics", (event) => tell("topics", parse(event.data)));
  source.addEventListener("reset", () => tell("reset"));
  source.addEventListener("bye", (event) => { goodbye.value = parse(event.data); state.value = "lost"; });
  source.onopen = () => { if (opened) tell("reset"); opened = true; };
}

function close() {
  source?.close();
  source = null;
}

/** Once a second: silence that is too long is a loss, and a stream that ended is opened again. */
function watch() {
  if (state.peek() === "paused") return;
  if (Date.now() - silentSince > LOST_AFTER_MS) state.value = "lost";
  if (!source || source.readyState === EventSource.CLOSED) open();
}

function resume() {
  silentSince = Date.now();
  state.value = "connecting";
  open();
}

export function togglePause() {
  pausedByHand.value = !pausedByHand.value;
  resume();
}

export function start() {
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return resume();
    close();
    state.value = "paused";
  });
  setInterval(watch, 1000);
  open();
}
