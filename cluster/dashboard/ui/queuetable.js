// The queues as a table: health first, then what waits, runs and failed, and how it moves.
import { html, cls } from "../lib/html.js";
import { duration, plural, rate } from "../lib/format.js";
import { patch, path } from "../lib/api.js";
import { to, go } from "../lib/route.js";
import { Badge, Count, Icon, Meter, attempt } from "./parts.js";
import { Spark } from "./chart.js";
import { confirm } from "./dialog.js";
import { curl, shell } from "../lib/copyas.js";

const WORDS = { ok: "OK", no_workers: "NO WORKERS", paused: "PAUSED", sealed: "SEALED" };
const WHY = {
  ok: "Tasks are handed out and taken in", no_workers: "Tasks wait and no worker serves the queue", paused: "Nothing is handed out until it is resumed", sealed: "No new tasks are taken in",
};

/** The health of a queue in one word, as the API has it; what else holds stands beside it. */
export function Health({ queue }) {
  return html`<span class="row tight"><${Badge} word=${WORDS[queue.health]} title=${WHY[queue.health]} />
    ${queue.full && html`<${Badge} word="FULL" tone="bad" title="As many tasks wait as max_depth allows" />`}
    ${queue.paused && queue.health !== "paused" && html`<span class="tag">paused</span>`}${queue.sealed && queue.health !== "sealed" && html`<span class="tag">sealed</span>`}</span>`;
}

/** Ask, then pause or resume. Resolves to whether it was done. */
export async function togglePause(name, paused, waiting) {
  const body = { paused: !paused };
  const word = paused ? "Resume" : "Pause";
  const sure = await confirm({
    title: `${word} ${name}?`, action: word,
    text: paused ? `Its ${plural(waiting, "queued task")} will be handed out to workers again.` : `Nothing more is handed out: ${plural(waiting, "queued task")} and all that come will wait. What runs now runs on.`,
    copies: [["curl", curl("PATCH", path("queues", name), body)], ["CLI", shell("quorl", "queue", word.toLowerCase(), name)]],
  });
  return sure && attempt(() => patch(path("queues", name), body), `${name} is ${paused ? "resumed" : "paused"}`);
}

function drain(queue) {
  const waiting = queue.counts.queued + queue.counts.retry;
  if (!waiting) return html`<span class="zero">–</span>`;
  return queue.drain_s === null ? html`<span class="dim" title="It does not shrink at the rates of now">∞</span>` : `≈ ${duration(queue.drain_s * 1000)}`;
}

function Row({ queue, short, current }) {
  const { counts } = queue;
  const name = queue.queue;
  const spark = queue.spark;
  return html`<tr class=${cls("click", { "is-cursor": current })} onClick=${() => go("queues", name)} data-row=${name}>
    <td class="first"><a class="name-cell cut" href=${to("queues", name)} title=${name} onClick=${(event) => event.stopPropagation()}>${name}</a></td><td><${Health} queue=${queue} /></td>
    <td class="num" data-label="Queued"><${Count} value=${counts.queued} /></td><td class="num" data-label="Processing"><${Count} value=${counts.processing} /></td><td class="num" data-label="Retry"><${Count} value=${counts.retry} /></td>
    ${!short && html`<td class="num" data-label="Scheduled"><${Count} value=${counts.scheduled} /></td>`}<td class="num" data-label="Failed"><${Count} value=${counts.failed} tone="bad" /></td>
    <td class="num" data-label="In /s">${rate(queue.submitted_s)}</td><td class="num" data-label="Done /s">${rate(queue.succeeded_s)}</td>
    <td class="gone trend">${spark && html`<${Spark} label=${`${name}: submitted and succeeded in the last five minutes`} lines=${[{ colour: "info", values: spark.submitted }, { colour: "ok", values: spark.succeeded }]} />`}</td>
    <td class="line"><div class="use"><${Meter} share=${queue.slots ? queue.busy / queue.slots : 0} tone=${queue.slots && queue.busy >= queue.slots ? "warn" : ""} label=${`${queue.busy} of ${queue.slots} slots busy`} /><span class="num small dim">${queue.busy}/${queue.slots}</span></div></td>
    <td class="num" data-label="Oldest">${queue.oldest_ms === null ? html`<span class="zero">–</span>` : duration(queue.oldest_ms)}</td>
    ${!short && html`<td class="num" data-label="Empty in">${drain(queue)}</td><td class="num does"><button type="button" class="button small icon" title=${queue.paused ? "Resume" : "Pause"} aria-label=${`${queue.paused ? "Resume" : "Pause"} ${name}`} onClick=${(event) => { event.stopPropagation(); togglePause(name, queue.paused, counts.queued); }}>
      <${Icon} name=${queue.paused ? "play" : "pause"} /></button></td>`}</tr>`;
}

/** `short` leaves out what the overview has no room for; `cursor` is the name of the row that the keyboard is at. */
export const QueueTable = ({ queues, short, cursor }) => html`<div class="table-wrap" tabindex="0"><table class=${cls("queues cards", { full: !short })}>
  <thead><tr><th>Queue</th><th>Health</th><th class="num">Queued</th><th class="num">Processing</th><th class="num">Retry</th>${!short && html`<th class="num">Scheduled</th>`}<th class="num">Failed</th>
    <th class="num">In /s</th><th class="num">Done /s</th><th class="trend"><span class="key-note"><i class="key info"></i>in <i class="key ok"></i>done, 5 min</span></th><th>Busy / slots</th><th class="num">Oldest</th>${!short && html`<th class="num">Empty in</th><th class="does"><span class="visually-hidden">Pause</span></th>`}</tr></thead>
  <tbody>${queues.map((queue) => html`<${Row} key=${queue.queue} queue=${queue} short=${short} current=${cursor === queue.queue} />`)}</tbody></table></div>`;
