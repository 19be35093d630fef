// All queues, and one of them.
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { overview } from "../lib/live.js";
import { get, patch, path, post, all } from "../lib/api.js";
import { useResource } from "../lib/resource.js";
import { count, duration, plural, rate } from "../lib/format.js";
import { route, to, go } from "../lib/route.js";
import { bind } from "../lib/keys.js";
import { Badge, Count, Empty, Filter, Icon, Problem, Ago, attempt } from "../ui/parts.js";
import { QueueTable, Health, togglePause } from "../ui/queuetable.js";
import { History } from "../ui/history.js";
import { confirm } from "../ui/dialog.js";
import { curl, shell } from "../lib/copyas.js";
import { Waiting } from "./overview.js";

export function Queues() {
  const name = route.value.rest[0];
  return name === undefined ? html`<${List} />` : html`<${One} key=${name} name=${name} />`;
}

function List() {
  const seen = overview.value;
  const wanted = (route.value.query.q || "").toLowerCase();
  const queues = (seen?.queues || []).filter((queue) => queue.queue.toLowerCase().includes(wanted));
  const cursor = useCursor(queues.map((queue) => queue.queue), (name) => go("queues", name));
  if (!seen) return html`<${Waiting} />`;
  return html`<div class="row"><${Filter} name="q" placeholder="Filter by name" width=${240} /><span class="dim small">${plural(seen.totals.queues, "queue")}, the most urgent first</span></div>
    <section class="panel">${queues.length ? html`<${QueueTable} queues=${queues} cursor=${cursor} />`
      : html`<${Empty} title=${wanted ? "No queue has that in its name" : "No queues yet"}>${!wanted && html`A queue exists from its first task. <a href="#/submit">Submit one</a>`}<//>`}
      ${seen.queues_more > 0 && html`<${Rest} shown=${new Set(seen.queues.map((queue) => queue.queue))} wanted=${wanted} />`}</section>`;
}

/** The queues that the overview has no room for, without rates. */
function Rest({ shown, wanted }) {
  const { data, error } = useResource((signal) => all("/v1/queues", {}, 5000, { signal }), [], 10_000);
  if (!data) return html`<div class="more"><${Problem} error=${error} />${!error && "…"}</div>`;
  const rest = data.items.filter((one) => !shown.has(one.name) && one.name.toLowerCase().includes(wanted));
  return html`<div class="table-wrap" tabindex="0"><table><thead><tr><th>${plural(rest.length, "more queue")}</th><th>Health</th><th class="num">Queued</th><th class="num">Processing</th><th class="num">Failed</th></tr></thead>
    <tbody>${rest.map((one) => html`<tr key=${one.name} class="click" onClick=${() => go("queues", one.name)}><td><a class="name-cell cut" href=${to("queues", one.name)} title=${one.name}>${one.name}</a></td>
      <td><${Health} queue=${one} /></td><td class="num"><${Count} value=${one.counts.queued} /></td><td class="num"><${Count} value=${one.counts.processing} /></td><td class="num"><${Count} value=${one.counts.failed} tone="bad" /></td></tr>`)}</tbody></table></div>`;
}

/** Which of the names j and k have led to; Enter opens it. */
export function useCursor(names, open) {
  const [at, setAt] = useState(-1);
  const now = useRef({});
  Object.assign(now.current, { names, open }); // keys may come faster than the page is drawn
  useEffect(() => {
    now.current.at = -1;
    const move = (by) => () => {
      const { names: all, at: before } = now.current;
      setAt(now.current.at = Math.max(0, Math.min(all.length - 1, before + by)));
      document.querySelector(`[data-row="${CSS.escape(all[now.current.at] ?? "")}"]`)?.scrollIntoView({ block: "nearest" });
    };
    const enter = () => { const name = now.current.names[now.current.at]; if (name !== undefined) now.current.open(name); };
    const unbind = [bind("j", move(1)), bind("k", move(-1)), bind("Enter", enter)];
    return () => unbind.forEach((one) => one());
  }, []);
  return names[at];
}

// -- one queue -------------------------------------------------------------------------------------------------------
function One({ name }) {
  const { data: info, error, reload } = useResource((signal) => get(path("queues", name), { consistency: "local" }, { signal }), [name], 2000);
  const seen = overview.value?.queues.find((one) => one.queue === name);
  const back = html`<a class="button small plain" href="#/queues"><${Icon} name="left" />Queues</a>`;
  if (!info) return html`<div class="row">${back}</div>${error ? html`<${Problem} error=${error} />` : html`<${Waiting} />`}`;
  return html`<div class="row">${back}<h2 class="title cut">${name}</h2><${Health} queue=${{ ...info, full: seen?.full }} />
      <span class="grow"></span><a class="button small" href=${to("submit", { queue: name })}><${Icon} name="submit" />Submit here</a>
      <button type="button" class="button small" onClick=${() => togglePause(name, info.paused, info.counts.queued).then(reload)}><${Icon} name=${info.paused ? "play" : "pause"} />${info.paused ? "Resume" : "Pause"}</button>
      <button type="button" class="button small" onClick=${() => toggleSeal(name, info.sealed).then(reload)}>${info.sealed ? "Unseal" : "Seal"}</button>
      <button type="button" class="button small danger" onClick=${() => purge(name).then(reload)}>Purge…</button></div>
    <${Counts} name=${name} counts=${info.counts} seen=${seen} oldest_ms=${info.oldest_ms} />
    <${History} about=${{ queue: name }} kinds=${["tasks"]} />
    <div class="two"><${Serving} name=${name} /><${Config} info=${info} /></div>`;
}

function Counts({ name, counts, seen, oldest_ms }) {
  const rows = [["queued", "QUEUED"], ["processing", "PROCESSING"], ["retry", "RETRY"], ["scheduled", "SCHEDULED"], ["success", "SUCCESS"], ["failed", "FAILED"], ["cancelled", "CANCELLED"], ["expired", "EXPIRED"]];
  return html`<section class="panel" aria-label="Tasks by state"><div class="tiles states">${rows.map(([key, word]) => html`
      <a key=${key} class="tile" href=${to("tasks", { queue: name, status: word })}><span class="label">${word}</span><span class=${`value${key === "failed" && counts[key] ? " bad-text" : ""}`}>${count(counts[key])}</span></a>`)}</div>
    <p class="more dim small">${seen ? `${rate(seen.submitted_s)}/s in, ${rate(seen.succeeded_s)}/s done, ${rate(seen.failed_attempts_s)}/s attempts fail. ${seen.busy} of ${plural(seen.slots, "slot")} busy. ` : ""}
      ${oldest_ms === null ? "Nothing waits." : `The first has waited for ${duration(oldest_ms)}.`} ${seen && seen.drain_s !== null ? `Empty in about ${duration(seen.drain_s * 1000)} at this rate.` : ""}</p></section>`;
}

function Serving({ name }) {
  const { data } = useResource((signal) => get("/v1/workers", { queue: name, limit: 100 }, { signal }), [name], 5000);
  const items = data?.items || [];
  return html`<section class="panel flush" aria-label="Workers that serve it"><header><h2>Workers that serve it</h2></header>
    ${!items.length ? html`<${Empty} title=${data ? "None" : "…"}><code>${shell("quorl", "worker", "run", "MODULE:APP", "-q", name)}</code><//>` : html`<div class="table-wrap" tabindex="0"><table class="brief">
      <thead><tr><th>Worker</th><th>Status</th><th class="gone">State</th><th class="num">Busy</th><th class="num">Heard</th></tr></thead>
      <tbody>${items.map((one) => html`<tr key=${one.worker_id}><td><a class="name-cell cut" href=${to("workers", { open: one.worker_id })} title=${one.name}>${one.name}</a>${one.standby && html` <span class="tag">stand-by</span>`}</td>
        <td><${Badge} word=${one.status} /></td><td class="gone">${one.status === "ALIVE" ? html`<${Badge} word=${one.state} />` : html`<span class="zero">–</span>`}</td><td class="num">${one.leases}/${one.concurrency}</td><td class="num"><${Ago} at=${one.last_heartbeat} /></td></tr>`)}</tbody></table></div>`}</section>`;
}

function backoffText({ kind, first_ms, max_ms, jitter, delays_ms }) {
  if (kind === "list") return delays_ms.map(duration).join(", ");
  return `${kind}, from ${duration(first_ms)} to ${duration(max_ms)}, jitter ${Math.round(100 * jitter)} %`;
}

function Config({ info }) {
  const facts = [
    ["Attempts", info.default_attempts], ["Lost workers until POISON", info.max_lost], ["Back-off", backoffText(info.backoff)],
    ["Time-out of a run", info.timeout_ms === null ? "none" : duration(info.timeout_ms)], ["Finished tasks are kept", info.keep_finished_ms ? duration(info.keep_finished_ms) : "for ever"],
    ["Most that wait", info.max_depth ? count(info.max_depth) : "no bound"], ["Partitions", info.partitions || "none"], ["Submitted ever", count(info.submitted)],
  ];
  return html`<section class="panel" aria-label="Configuration"><header><h2>Configuration</h2><span class="right"><code>PATCH ${path("queues", info.name)}</code></span></header>
    <div class="body"><dl class="facts">${facts.map(([word, value]) => html`<dt key=${word}>${word}</dt><dd>${value}</dd>`)}</dl></div></section>`;
}

async function toggleSeal(name, sealed) {
  const body = { sealed: !sealed };
  const sure = await confirm({
    title: `${sealed ? "Unseal" : "Seal"} ${name}?`, action: sealed ? "Unseal" : "Seal", copies: [["curl", curl("PATCH", path("queues", name), body)]],
    text: sealed ? "It will take in new tasks again." : "No new tasks are taken in: submits are refused with queue_sealed. What is in it is still handed out.",
  });
  return sure && attempt(() => patch(path("queues", name), body), `${name} is ${sealed ? "open" : "sealed"}`);
}

/** What waits is cancelled; the number is asked for first. */
async function purge(name) {
  const where = `${path("queues", name)}/purges`;
  let impact;
  if (!await attempt(async () => { impact = await post(where, { dry_run: true }); })) return;
  const waiting = impact.removed + impact.remaining;
  const sure = await confirm({
    title: `Purge ${name}?`, action: `Cancel ${plural(waiting, "task")}`, danger: true, copies: [["curl", curl("POST", where, {})], ["CLI", shell("quorl", "queue", "purge", name)]],
    text: `${plural(waiting, "task")} that wait (SCHEDULED, QUEUED, RETRY) become CANCELLED. Running and finished ones stay.`,
  });
  if (!sure) return;
  let done = 0;
  await attempt(async () => {
    for (let left = 1; left > 0;) { const answer = await post(where, {}); done += answer.removed; left = answer.removed ? answer.remaining : 0; }
  }, () => `${plural(done, "task")} of ${name} cancelled`);
}
