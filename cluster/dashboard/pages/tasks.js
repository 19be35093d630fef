// The tasks: filters in the address, rows by the ten thousand, what can be done to many, and one of them in a drawer.
import { html, cls, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { listen, overview } from "../lib/live.js";
import { TaskList } from "../lib/tasklist.js";
import { route, refine, to, go } from "../lib/route.js";
import { bind } from "../lib/keys.js";
import { count, duration, plural, now } from "../lib/format.js";
import { callText } from "../lib/json.js";
import { Ago, Badge, Empty, Filter, Problem } from "../ui/parts.js";
import { VirtualList } from "../ui/virtual.js";
import { BulkBar } from "../ui/bulk.js";
import { Jump } from "../ui/jump.js";
import { TaskDrawer } from "./task.js";

export const STATES = ["SCHEDULED", "QUEUED", "PROCESSING", "RETRY", "SUCCESS", "FAILED", "CANCELLED", "EXPIRED"];
const FILTERS = ["queue", "status", "name", "worker_id", "order"];
const narrow = matchMedia("(max-width: 760px)");

/** The list for the filters of the address, fresh by the stream. */
function useTasks(filters, atTop) {
  const [, again] = useState(0);
  const key = JSON.stringify(filters);
  const list = useMemo(() => new TaskList(filters, () => {}), [key]);
  useEffect(() => {
    list.change = () => again((before) => before + 1);
    list.refresh();
    const stop = [listen("tasks", (frame) => {
      list.take(frame, atTop.current);
      if (list.missed && atTop.current) list.refresh();
    }), listen("reset", () => list.refresh())];
    return () => { stop.forEach((one) => one()); list.close(); };
  }, [list]);
  return list;
}

function useNarrow() {
  const [is, set] = useState(narrow.matches);
  useEffect(() => {
    const change = () => set(narrow.matches);
    narrow.addEventListener("change", change);
    return () => narrow.removeEventListener("change", change);
  }, []);
  return is;
}

export function Tasks() {
  const { query, rest } = route.value;
  const filters = Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));
  const atTop = useRef(true), cursor = useRef(-1); // a ref, for keys may come faster than the page is drawn
  const list = useTasks(filters, atTop);
  const [picked, setPicked] = useState(new Set());
  const [at, setAt] = useState(-1);
  const height = useNarrow() ? 58 : 36;
  useEffect(() => { setPicked(new Set()); setAt(-1); }, [JSON.stringify(filters)]);
  const open = (task) => task && go("tasks", task.id, route.peek().query);
  const pick = (task) => task && setPicked((before) => { const next = new Set(before); next.delete(task.id) || next.add(task.id); return next; });
  useEffect(() => {
    cursor.current = -1;
    const move = (by) => () => setAt(cursor.current = Math.max(0, Math.min(list.items.length - 1, cursor.current + by)));
    const keys = [bind("j", move(1)), bind("k", move(-1)), bind("Enter", () => open(list.items[cursor.current])), bind("x", () => pick(list.items[cursor.current]))];
    return () => keys.forEach((one) => one());
  }, [list]);
  const row = (index) => {
    const task = list.items[index];
    return html`<${Row} key=${task.id} task=${task} index=${index} height=${height} picked=${picked.has(task.id)} current=${index === at} opened=${task.id === rest[0]} onOpen=${open} onPick=${pick} />`;
  };
  const total = knownTotal(filters), oldest = filters.order === "oldest";
  return html`<${Bar} filters=${filters} />
    <section class="panel tasks" aria-label="Tasks">
      <${BulkBar} list=${list} picked=${picked} filters=${filters} total=${total} onDone=${() => { setPicked(new Set()); list.refresh(); }} onClear=${() => setPicked(new Set())} />
      ${list.missed > 0 && html`<button type="button" class="fresh" onClick=${() => { list.refresh(); document.querySelector(".tasks .virtual").scrollTop = 0; }}>${plural(list.missed, "change")} since: show</button>`}
      <div class="task-table" role="table" aria-label="Tasks" aria-rowcount=${list.next ? -1 : list.items.length + 1}><div class="task-row head" role="row"><span role="columnheader"><${PickAll} list=${list} picked=${picked} setPicked=${setPicked} /></span>
        ${["Status", "Task", "Queue", "Try", "Worker"].map(head)}<span class="c-age" role="columnheader"><button type="button" class="order" title=${oldest ? "The oldest first; click for the newest" : "The newest first; click for the oldest"} onClick=${() => refine({ order: oldest ? "" : "oldest" })}>Age ${oldest ? "↑" : "↓"}</button></span>
        ${["Took", "Error"].map(head)}</div>
      ${list.items.length ? html`<${VirtualList} label="Rows" count=${list.items.length} height=${height} row=${row} at=${at} onEnd=${() => list.more()} onScroll=${(top) => { atTop.current = top < 8; }} />` : null}</div>
      ${!list.items.length && html`<${Nothing} list=${list} filters=${filters} />`}
      <footer class="tasks-foot dim small" data-loaded=${list.items.length}>${list.error && list.items.length > 0 ? html`<span class="bad-text">${list.error.message}</span>` : html`${plural(list.items.length, "task")} loaded${total === null ? "" : ` of ${count(Math.max(total, list.items.length))}`}${list.loading ? ", loading…" : list.next ? ", more as you scroll" : ""}`}</footer>
    </section>
    ${rest[0] !== undefined && html`<${TaskDrawer} key=${rest[0]} id=${rest[0]} onClose=${() => go("tasks", query)} />`}`;
}

const head = (word) => html`<span key=${word} class=${`c-${word.toLowerCase()}`} role="columnheader">${word}</span>`;

/** How many there are, where the overview knows it: without filters, or by state and queue alone. */
function knownTotal({ queue, status, name, worker_id }) {
  const seen = overview.value;
  if (!seen || name || worker_id) return null;
  const counts = queue ? seen.queues.find((one) => one.queue === queue)?.counts : seen.totals.counts;
  if (!counts) return null;
  return (status ? status.split(",") : STATES).reduce((sum, word) => sum + (counts[word.toLowerCase()] || 0), 0);
}

function Nothing({ list, filters }) {
  if (list.error) return html`<div class="body pad"><${Problem} error=${list.error} /></div>`;
  if (!list.loaded || list.loading || list.next) return html`<${Empty} title="Loading…" />`;
  return Object.keys(filters).length ? html`<${Empty} title="No task fits"><a href="#/tasks">Clear the filters</a><//>`
    : html`<${Empty} title="No tasks yet"><a href="#/submit">Submit one</a> or <code>quorl task submit NAME</code><//>`;
}

function Bar({ filters }) {
  const chosen = new Set(filters.status ? filters.status.split(",") : []);
  const toggle = (word) => {
    const next = new Set(chosen);
    next.delete(word) || next.add(word);
    refine({ status: STATES.filter((one) => next.has(one)).join(",") });
  };
  const queues = overview.value?.queues || [];
  const names = [...new Set(queues.map((one) => one.queue))];
  return html`<div class="filters"><div class="segments scroll" role="group" aria-label="States"><button type="button" aria-pressed=${String(!chosen.size)} onClick=${() => refine({ status: "" })}>All</button>
      ${STATES.map((word) => html`<button key=${word} type="button" aria-pressed=${String(chosen.has(word))} onClick=${() => toggle(word)}>${word}</button>`)}</div>
    <${Filter} name="queue" placeholder="Queue" list="queue-names" width=${120} /><${Filter} name="name" placeholder="Task name" width=${140} /><${Filter} name="worker_id" placeholder="Worker id" width=${106} /><${Jump} where="narrow-only" />
    <datalist id="queue-names">${names.map((name) => html`<option key=${name} value=${name} />`)}</datalist>
    ${Object.keys(filters).length > 0 && html`<a class="button plain small" href="#/tasks">Clear</a>`}</div>`;
}

function PickAll({ list, picked, setPicked }) {
  const some = list.items.slice(0, 1000);
  const every = some.length > 0 && some.every((task) => picked.has(task.id));
  return html`<input type="checkbox" aria-label="Select all that are loaded, 1 000 at most" checked=${every} onChange=${() => setPicked(every ? new Set() : new Set(some.map((task) => task.id)))} />`;
}

function took(task) {
  if (!task.started_at) return "";
  const end = task.finished_at ? new Date(task.finished_at).getTime() : task.status === "PROCESSING" ? now.value : null;
  return end === null ? "" : duration(end - new Date(task.started_at).getTime());
}

function Row({ task, index, height, picked, current, opened, onOpen, onPick }) {
  return html`<div class=${cls("task-row", { picked, "is-cursor": current, opened })} role="row" aria-rowindex=${index + 2} style=${{ height: `${height}px` }} data-id=${task.id} onClick=${() => onOpen(task)}>
    <span role="cell" class="c-pick" onClick=${(event) => event.stopPropagation()}><input type="checkbox" aria-label=${`Select ${task.id}`} checked=${picked} onChange=${() => onPick(task)} /></span>
    <span role="cell" class="c-status"><${Badge} word=${task.status} /></span>
    <span role="cell" class="c-task cut"><a href=${to("tasks", task.id, route.value.query)} onClick=${(event) => event.stopPropagation()} title=${task.id}>${callText(task.name, task.args, null)}</a></span>
    <span role="cell" class="c-queue cut dim">${task.queue}</span>
    <span role="cell" class="c-try dim">${task.attempts}/${task.max_attempts}${task.lost ? html`<i title=${`${plural(task.lost, "worker")} lost`}> +${task.lost}</i>` : ""}</span>
    <span role="cell" class="c-worker cut dim">${task.worker || ""}</span>
    <span role="cell" class="c-age dim"><${Ago} at=${task.created_at} /></span>
    <span role="cell" class="c-took dim">${took(task)}</span>
    <span role="cell" class="c-error cut bad-text" title=${task.error || ""}>${task.error || ""}</span></div>`;
}
