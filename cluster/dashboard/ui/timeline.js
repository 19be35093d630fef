// The life of a task as a bar: how long it waited, ran, and waited again. Every run has its place, also after a retry by hand.
import { html, cls } from "../lib/html.js";
import { clock, duration, now, plural } from "../lib/format.js";

const TONE = { success: "ok", failed: "bad", timeout: "bad", lost: "warn", released: "idle", cancelled: "idle", running: "accent" };
const IN_BAR = 61, IN_WORDS = 17;
const at = (moment) => new Date(moment).getTime();

/** Pieces from submit to now, with their lengths: waits, runs, and how long it lay finished until somebody retried it. */
export function pieces(task, events) {
  const found = [];
  const rests = events.flatMap((one, n) => (one.kind === "retried" ? [{ until: at(one.at), status: events[n - 1]?.status }] : []));
  let from = at(task.created_at);
  const add = (what, tone, until, run) => {
    if (run || until > from) found.push({ what, tone, ms: until - from, from, run });
    from = until;
  };
  const wait = (what, until) => {
    for (; rests.length && rests[0].until <= until; rests.shift()) add(`${rests[0].status} until it was retried`, "idle", rests[0].until);
    add(what, "wait", until);
  };
  for (const run of task.history) {
    const start = at(run.started_at), end = run.ended_at ? at(run.ended_at) : Math.max(start, now.value);
    if (!found.length && run.number > 1) {
      while (rests.length && rests[0].until <= start) rests.shift();
      add(`${plural(run.number - 1, "run")} before, not shown`, "idle", start);
    } else wait(run.number > 1 ? "waited again" : "waited", start);
    add(`run ${run.number} ${run.outcome}`, TONE[run.outcome], end, run);
  }
  const last = task.finished_at ? at(task.finished_at) : task.status === "PROCESSING" ? from : Math.max(from, now.value);
  if (last - from > 5 || !found.length) wait(task.finished_at ? "until it ended" : "waits", last);
  return found;
}

/** At most so many of the pieces, the first and the last ones: what lies between is one. */
export function folded(all, most) {
  if (all.length <= most) return all;
  const head = Math.floor(most / 2), middle = all.slice(head, all.length - (most - head - 1));
  const runs = middle.filter((one) => one.run).length;
  const one = { what: `${plural(runs, "run")} more`, tone: "idle", ms: middle.reduce((sum, piece) => sum + piece.ms, 0), from: middle[0].from };
  return [...all.slice(0, head), one, ...all.slice(head + middle.length)];
}

export function Timeline({ task, events }) {
  const all = pieces(task, events);
  const total = all.reduce((sum, one) => sum + one.ms, 0) || 1;
  const told = folded(all, IN_WORDS);
  const words = `submitted ${clock(task.created_at)}; ${told.map((one) => `${one.what} ${duration(one.ms)}`).join("; ")}; ${task.status}`;
  const where = (one) => (one.run ? ` at ${one.run.worker}` : "");
  return html`<div class="timeline" role="img" aria-label=${words}><div class="bar">${folded(all, IN_BAR).map((one, n) => html`
      <i key=${n} class=${cls("piece", one.tone)} style=${{ flexGrow: Math.max(0.002, one.ms / total) }} title=${`${one.what}${where(one)}: ${duration(one.ms)}, from ${clock(one.from, true)}`}></i>`)}</div>
    <ol class="pieces" aria-hidden="true">${told.map((one, n) => html`<li key=${n}><i class=${cls("key", one.tone)}></i>${one.what} <b>${duration(one.ms)}</b></li>`)}</ol></div>`;
}
