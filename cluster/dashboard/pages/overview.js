// Is it healthy, is it moving, what is wrong.
import { html, cls, useState } from "../lib/html.js";
import { overview } from "../lib/live.js";
import { bytes, count, duration, plural, rate } from "../lib/format.js";
import { to } from "../lib/route.js";
import { Badge, Count, Empty } from "../ui/parts.js";
import { Map } from "../ui/map.js";
import { History } from "../ui/history.js";
import { QueueTable } from "../ui/queuetable.js";
import { Start } from "../ui/start.js";

/** So many alerts stand above the numbers: where a host of queues has lost its workers, the page would be nothing else. */
const ALERTS = 5;

export function Overview() {
  const seen = overview.value;
  if (!seen) return html`<${Waiting} />`;
  const { totals } = seen;
  const bare = !totals.queues && !totals.topics && !seen.workers.length;
  return html`<${Alerts} seen=${seen} />
    <div class="overview-top">
      <section class="panel" aria-label="Cluster"><header><h2>Cluster</h2><${Badge} word=${seen.health} />
        <span class="right"><span>term <b>${count(seen.term)}</b></span><span>entry <b>${count(seen.sequence)}</b></span></span></header>
        <${Map} seen=${seen} /></section>
      <${Now} seen=${seen} /></div>
    ${bare ? html`<${Start} />` : html`<${History} /><${Lists} seen=${seen} />`}`;
}

/** Where the numbers will stand, before the first have come. */
export const Waiting = () => html`<div class="panel skeleton" aria-busy="true"><${Empty} title="Connecting to the node…" /></div>`;

function alertLink(alert) {
  if (alert.queue !== null) return to("queues", alert.queue);
  if (alert.worker_id !== null) return to("workers", { open: alert.worker_id });
  return alert.node !== null ? to("cluster") : null;
}

function Alerts({ seen }) {
  const shown = seen.alerts.filter((alert) => alert.code !== "no_leader" && alert.code !== "no_quorum"); // the banner says so
  const [all, setAll] = useState(false);
  if (!shown.length) return null;
  const many = shown.length > ALERTS + 1;
  return html`<ul class="alerts" aria-label="Alerts">${shown.slice(0, many && !all ? ALERTS : shown.length).map((alert) => {
    const where = alertLink(alert);
    return html`<li key=${`${alert.code} ${alert.node} ${alert.queue} ${alert.worker_id}`} class=${cls("alert", alert.severity === "critical" ? "bad" : "warn")}>
      <span class="mark" aria-hidden="true">${alert.severity === "critical" ? "!" : "i"}</span><span class="visually-hidden">${alert.severity}: </span>
      <span class="grow">${alert.text}</span>${where && html`<a href=${where}>Look</a>`}</li>`;
  })}${many && html`<li><button type="button" class="button small" aria-expanded=${all} onClick=${() => setAll(!all)}>${all ? `Show the first ${ALERTS}` : `Show ${plural(shown.length - ALERTS, "more alert")}`}</button></li>`}
    ${seen.alerts_more > 0 && (all || !many) && html`<li class="dim small">and ${plural(seen.alerts_more, "more alert")}</li>`}</ul>`;
}

function Tile({ label, value, note, href, tone, title, pair }) {
  const body = html`<span class="label">${label}</span><span class=${cls("value", { pair }, tone && `${tone}-text`)}>${value}</span><span class="note">${note || "\u00a0"}</span>`;
  return href ? html`<a class="tile" href=${href}>${body}</a>` : html`<div class="tile" title=${title}>${body}</div>`;
}

function Now({ seen }) {
  const { counts, ...totals } = seen.totals;
  const { latency } = seen;
  return html`<section class="panel" aria-label="Now"><header><h2>Now</h2><span class="right">rates over the last 10 s</span></header>
    <div class="tiles">
      <${Tile} label="Queued" value=${count(counts.queued)} note=${`${rate(totals.submitted_s)}/s submitted`} href=${to("tasks", { status: "QUEUED" })} />
      <${Tile} label="Processing" value=${count(counts.processing)} note=${`${count(totals.busy)} of ${plural(totals.slots, "slot")}`} href=${to("tasks", { status: "PROCESSING" })} />
      <${Tile} label="Succeeded" value=${html`${rate(totals.succeeded_s)}<small>/s</small>`} note=${`${count(counts.success)} kept`} href=${to("tasks", { status: "SUCCESS" })} />
      <${Tile} label="Failed" value=${count(counts.failed)} tone=${counts.failed ? "bad" : ""} note=${`${rate(totals.failed_attempts_s)}/s attempts fail`} href=${to("dead")} />
      <${Tile} label="Scheduled · Retry" value=${html`${count(counts.scheduled)}<small> · ${count(counts.retry)}</small>`} note="wait for their time" href=${to("tasks", { status: "SCHEDULED,RETRY" })} />
      <${Tile} label="Workers" value=${count(totals.workers_alive)} note=${totals.workers_dead ? html`<span class="bad-text">${count(totals.workers_dead)} DEAD</span>` : "ALIVE"} href=${to("workers")} />
      <${Tile} label="Messages in" value=${html`${rate(totals.appended_s)}<small>/s</small>`} note=${`${count(totals.messages)} in ${plural(totals.topics, "topic")}`} href=${to("topics")} />
      <${Tile} label="Wait · Run, median" pair value=${html`${duration(latency.wait_p50_ms)}<small> · ${duration(latency.run_p50_ms)}</small>`} note=${`p99 ${duration(latency.wait_p99_ms)} · ${duration(latency.run_p99_ms)}`} title="Of the last minute: from QUEUED to the lease, and runs that succeeded" />
    </div></section>`;
}

function Lists({ seen }) {
  return html`<section class="panel flush" aria-label="Queues"><header><h2>Queues</h2><span class="right"><a href="#/queues">All queues</a></span></header>
      ${seen.queues.length ? html`<${QueueTable} queues=${seen.queues} short />` : html`<${Empty} title="No queues yet">A queue exists from its first task. <a href="#/submit">Submit one</a><//>`}
      ${seen.queues_more > 0 && html`<p class="more"><a href="#/queues">and ${plural(seen.queues_more, "more queue")}</a></p>`}</section>
    <div class="two"><${WorkersBrief} seen=${seen} /><${TopicsBrief} seen=${seen} /></div>`;
}

function WorkersBrief({ seen }) {
  const shown = seen.workers.slice(0, 8), more = seen.workers.length - shown.length + seen.workers_more;
  return html`<section class="panel flush" aria-label="Workers"><header><h2>Workers</h2><span class="right"><a href="#/workers">All workers</a></span></header>
    ${!shown.length ? html`<${Empty} title="No workers"><code>quorl worker run shop:app</code> starts one.<//>` : html`<div class="table-wrap" tabindex="0"><table class="brief">
      <thead><tr><th>Worker</th><th>Status</th><th class="num">Busy</th><th class="gone">Queues</th></tr></thead>
      <tbody>${shown.map((one) => html`<tr key=${one.worker_id}><td><a class="name-cell cut" href=${to("workers", { open: one.worker_id })} title=${one.name}>${one.name}</a>${one.standby && html` <span class="tag">stand-by</span>`}</td>
        <td><${Badge} word=${one.status} /></td><td class="num">${one.status === "ALIVE" ? `${one.leases}/${one.concurrency}` : "–"}</td><td class="dim cut cell gone">${one.queues.join(", ")}</td></tr>`)}</tbody></table></div>`}
    ${more > 0 && html`<p class="more"><a href="#/workers">and ${plural(more, "more worker")}</a></p>`}</section>`;
}

function TopicsBrief({ seen }) {
  return html`<section class="panel flush" aria-label="Topics"><header><h2>Topics</h2><span class="right"><a href="#/topics">All topics</a></span></header>
    ${!seen.topics.length ? html`<${Empty} title="No topics"><code>quorl topic create NAME</code> makes one.<//>` : html`<div class="table-wrap" tabindex="0"><table class="brief">
      <thead><tr><th>Topic</th><th class="num">Messages</th><th class="num">In /s</th><th class="num">Worst lag</th><th class="num gone">Size</th></tr></thead>
      <tbody>${seen.topics.map((one) => html`<tr key=${one.topic}><td><a class="name-cell cut" href=${to("topics", one.topic)} title=${one.topic}>${one.topic}</a></td>
        <td class="num">${count(one.messages)}</td><td class="num">${rate(one.appended_s)}</td><td class="num"><${Count} value=${one.worst_lag} /></td><td class="num gone">${bytes(one.bytes)}</td></tr>`)}</tbody></table></div>`}
    ${seen.topics_more > 0 && html`<p class="more"><a href="#/topics">and ${plural(seen.topics_more, "more topic")}</a></p>`}</section>`;
}
