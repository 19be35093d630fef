// The life of a task as a bar: how long it waited, ran, and waited again.
import { html, cls } from "../lib/html.js";
import { clock, duration, now } from "../lib/format.js";

const TONE = { success: "ok", failed: "bad", timeout: "bad", lost: "warn", released: "idle", cancelled: "idle", running: "accent" };
const at = (moment) => new Date(moment).getTime();

/** Pieces from submit to now: waiting ones and runs, with their lengths. */
function pieces(task) {
  const found = [];
  let from = at(task.created_at);
  for (const run of task.history) {
    const start = at(run.started_at), end = run.ended_at ? at(run.ended_at) : Math.max(start, now.value);
    found.push({ what: found.length ? "waited again" : "waited", tone: "wait", ms: start - from, from });
    found.push({ what: `${run.number}: ${run.outcome} at ${run.worker}`, tone: TONE[run.outcome], ms: end - start, from: start, run });
    from = end;
  }
  const last = task.finished_at ? at(task.finished_at) : task.status === "PROCESSING" ? from : Math.max(from, now.value);
  if (last - from > 5 || !found.length) found.push({ what: task.finished_at ? "until it ended" : "waits", tone: "wait", ms: last - from, from });
  return found.filter((one) => one.run || one.ms > 0);
}

export function Timeline({ task }) {
  const all = pieces(task);
  const total = all.reduce((sum, one) => sum + one.ms, 0) || 1;
  const words = `submitted ${clock(task.created_at)}; ${all.map((one) => `${one.what} ${duration(one.ms)}`).join("; ")}; ${task.status}`;
  return html`<div class="timeline" role="img" aria-label=${words}><div class="bar">${all.map((one, n) => html`
      <i key=${n} class=${cls("piece", one.tone)} style=${{ flexGrow: Math.max(0.002, one.ms / total) }} title=${`${one.what}: ${duration(one.ms)}, from ${clock(one.from, true)}`}></i>`)}</div>
    <ol class="pieces" aria-hidden="true">${all.slice(-7).map((one, n) => html`<li key=${n}><i class=${cls("key", one.tone)}></i>${one.run ? `run ${one.run.number} ${one.run.outcome}` : one.what} <b>${duration(one.ms)}</b></li>`)}</ol></div>`;
}
