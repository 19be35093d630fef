// One task in the drawer: what it is, what happened to it, why it waits, and what can be done.
import { html, useEffect } from "../lib/html.js";
import { listen } from "../lib/live.js";
import { get, path, post, remove } from "../lib/api.js";
import { useResource } from "../lib/resource.js";
import { age, clock, count, duration, now, plural } from "../lib/format.js";
import { callText } from "../lib/json.js";
import { to } from "../lib/route.js";
import { curl, shell, submitCopies } from "../lib/copyas.js";
import { Badge, Code, Copy, Icon, Json, Problem, attempt } from "../ui/parts.js";
import { Drawer, CopyAs, confirm } from "../ui/dialog.js";
import { Timeline } from "../ui/timeline.js";

const FINAL = new Set(["SUCCESS", "FAILED", "CANCELLED", "EXPIRED"]);
const AGAIN = new Set(["FAILED", "CANCELLED", "EXPIRED"]);

async function ask(id, signal) {
  const local = { consistency: "local" };
  const task = await get(path("tasks", id), local, { signal });
  const [events, why] = await Promise.all([
    get(`${path("tasks", id)}/events`, local, { signal }),
    FINAL.has(task.status) ? null : get(`${path("tasks", id)}/why`, local, { signal }),
  ]);
  return { task, events: events.items, why: why?.reasons || [] };
}

export function useTask(id) {
  const seen = useResource((signal) => ask(id, signal), [id], 3000);
  useEffect(() => listen("tasks", (frame) => { if (frame.items.some((task) => task.id === id)) seen.reload(); }), [id]);
  return seen;
}

export function TaskDrawer({ id, onClose }) {
  const { data, error, reload } = useTask(id);
  const head = html`<div class="stack tight"><div class="row">${data && html`<${Badge} word=${data.task.status} />`}${data?.task.cancel_requested && !FINAL.has(data.task.status) && html`<span class="tag">asked to stop</span>`}<span class="mono small dim id">${id}</span><${Copy} text=${id} title="Copy the id" /></div>
    <div class="call mono">${data ? callText(data.task.name, data.task.args, data.task.kwargs, 400) : error?.code === "task_not_found" ? "No such task" : "…"}</div></div>`;
  return html`<${Drawer} label=${`Task ${id}`} head=${head} onClose=${onClose}>
    ${error && html`<${Problem} error=${error} />`}${data && html`<${Body} ...${data} reload=${reload} onClose=${onClose} />`}<//>`;
}

function Body({ task, events, why, reload, onClose }) {
  const failed = task.status !== "SUCCESS" && task.errors.length > 0;
  return html`<${Actions} task=${task} reload=${reload} onClose=${onClose} />
    ${why.length > 0 && html`<section aria-label="Why"><h3>Why is it not finished?</h3><ul class="stack">${why.map((one) => html`<li key=${one.code} class="why"><span class="tag">${one.code.replaceAll("_", " ")}</span> ${one.detail}${one.hint && html` <span class="dim">${one.hint}</span>`}</li>`)}</ul></section>`}
    ${task.reason && html`<p class="bad-text">${reasonText(task)}</p>`}
    <section aria-label="Timeline"><h3>Timeline</h3><${Timeline} task=${task} events=${events} /></section>
    ${task.progress !== null && !FINAL.has(task.status) && html`<p class="small">Progress ${Math.round(task.progress * 100)} %${task.note ? `: ${task.note}` : ""}</p>`}
    ${task.status === "SUCCESS" && html`<section aria-label="Result"><h3>Result</h3><${Json} raw=${task.result} /></section>`}
    <${Attempts} task=${task} open=${failed} />
    <section aria-label="Arguments"><h3>Arguments</h3><${Json} raw=${task.args} />${task.kwargs.text !== "{}" && html`<div class="gap"><${Json} raw=${task.kwargs} /></div>`}</section>
    <${Facts} task=${task} />
    <section aria-label="Submit the same"><h3>The same task, submitted anew</h3><${CopyAs} copies=${submitCopies(task)} /></section>
    <details><summary>Every transition (${events.length})</summary><${Events} events=${events} /></details>`;
}

function reasonText({ reason, status, attempts, lost, finished_at }) {
  const said = {
    ERROR: `its last of ${plural(attempts, "attempt")} failed`, TIMEOUT: "its last attempt ran out of time", POISON: `it lost ${plural(lost, "worker")}`, NO_RETRY: "its error says that trying again is of no use",
    CANCELLED: "somebody cancelled it", PURGED: "its queue was purged", EXPIRED: "it was not started in time",
  };
  return `${status}, because ${said[reason] || reason} (${reason}, ${clock(finished_at)}).`;
}

function Actions({ task, reload, onClose }) {
  const where = path("tasks", task.id);
  const act = (action, done) => attempt(action, done).then(reload);
  const cancel = async () => {
    const running = task.status === "PROCESSING";
    const sure = await confirm({
      title: "Cancel this task?", action: "Cancel the task", danger: true, copies: [["curl", curl("POST", `${where}/cancel`)], ["CLI", shell("quorl", "task", "cancel", task.id)]],
      text: running ? "1 task. Its worker is told with its next sign of life, and decides." : "1 task. It waits, so it is CANCELLED at once.",
    });
    if (sure) act(() => post(`${where}/cancel`), (done) => (done.status === "CANCELLED" ? "Cancelled" : "Its worker is told to stop"));
  };
  const forget = async () => {
    const sure = await confirm({ title: "Forget this task?", text: "1 task. It is deleted with its result and history.", action: "Forget", danger: true, copies: [["curl", curl("DELETE", where)]] });
    if (sure && await attempt(() => remove(where), "Forgotten")) onClose();
  };
  const again = to("submit", { like: task.id });
  return html`<div class="row">
    ${AGAIN.has(task.status) && html`<button type="button" class="button small primary" onClick=${() => act(() => post(`${where}/retry`), "Queued again")}><${Icon} name="refresh" />Retry</button>`}
    ${!FINAL.has(task.status) && html`<button type="button" class="button small danger" disabled=${task.cancel_requested} onClick=${cancel}>Cancel…</button>`}
    <a class="button small" href=${again}>Edit and submit anew</a>
    ${FINAL.has(task.status) && html`<button type="button" class="button small" onClick=${forget}>Forget…</button>`}
    <${Copy} label="Link" title="Copy the address of this view" text=${() => location.href} /></div>`;
}

function Attempts({ task, open }) {
  if (!task.history.length) return null;
  const newest = [...task.history].reverse();
  const shown = newest.findIndex((one) => one.error);
  return html`<section aria-label="Attempts"><h3>Attempts</h3><ol class="attempts">${newest.map((one, at) => html`<li key=${one.number}><details open=${open && at === shown}>
    <summary><span class="no">${one.number}</span><${Badge} word=${one.outcome} /><span class="cut grow">${one.error ? html`<span class="bad-text">${one.error.type}: ${one.error.message}</span>` : ""}</span>
      <span class="dim small nowrap">${one.worker} · ${one.ended_at ? duration(new Date(one.ended_at) - new Date(one.started_at)) : age(now.value - new Date(one.started_at))}</span></summary>
    <div class="attempt-body">${one.error?.traceback ? html`<${Code} text=${one.error.traceback} keep />` : one.error ? html`<${Code} text=${`${one.error.type}: ${one.error.message}`} />` : html`<p class="dim small">${one.outcome === "lost" ? "There was no sign of life of its worker: did its process end, or its machine?" : "No error was reported."}</p>`}
      <p class="dim small">Worker <a href=${to("workers", { open: one.worker_id })}>${one.worker}</a> (${one.worker_id}), lease token ${one.token}, ${clock(one.started_at, true)} to ${one.ended_at ? clock(one.ended_at, true) : "now"}</p></div></details></li>`)}</ol></section>`;
}

function Facts({ task }) {
  const facts = [
    ["Queue", html`<a href=${to("queues", task.queue)}>${task.queue}</a>${task.partition === null ? "" : `, partition ${task.partition}`}`], ["Attempts", `${task.attempts} of ${task.max_attempts}`],
    ["Priority", task.priority], ["Created", clock(task.created_at, true)], task.due_at && ["Due", clock(task.due_at, true)], task.finished_at && ["Finished", clock(task.finished_at, true)],
    ["Time-out", task.timeout_ms === null ? "none" : duration(task.timeout_ms)], ["Lost workers", `${task.lost} of ${task.max_lost}`], task.key !== null && ["Key", task.key], task.tags.length > 0 && ["Tags", task.tags.join(", ")],
    ...Object.entries(task.meta || {}).map(([name, value]) => [name, String(value)]), task.traceparent && ["Trace", task.traceparent], task.tries !== null && ["Tries claimed by its maker", task.tries],
  ].filter(Boolean);
  return html`<section aria-label="Facts"><h3>Facts</h3><dl class="facts two">${facts.map(([word, value]) => html`<div key=${word}><dt>${word}</dt><dd>${value}</dd></div>`)}</dl></section>`;
}

function Events({ events }) {
  return html`<ol class="events">${events.map((one, at) => html`<li key=${`${one.index} ${at}`}><span class="mono small dim">${clock(one.at, true)}</span> <b>${one.kind.replaceAll("_", " ")}</b> <${Badge} word=${one.status} />
    <span class="dim small">entry ${count(one.index)}, term ${one.term}, ${one.node} led${one.worker_id ? `, worker ${one.worker_id}` : ""}</span></li>`)}</ol>`;
}
