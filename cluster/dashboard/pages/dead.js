// What FAILED tasks died of: the same errors together, to be queued again or forgotten as a group.
import { html, cls, useState } from "../lib/html.js";
import { overview } from "../lib/live.js";
import { get, path } from "../lib/api.js";
import { deadGroups } from "../lib/groups.js";
import { useResource } from "../lib/resource.js";
import { count, plural } from "../lib/format.js";
import { route, to } from "../lib/route.js";
import { Ago, Code, Empty, Filter, Icon, Problem } from "../ui/parts.js";
import { bulk } from "../ui/bulk.js";

export function Dead() {
  const { queue = "", name = "" } = route.value.query;
  const { data, error, reload } = useResource((signal) => deadGroups({ queue, name }, signal), [queue, name], 10_000);
  const [open, setOpen] = useState(null);
  const groups = data?.items || [];
  const sum = groups.reduce((total, one) => total + one.count, 0);
  const failed = overview.value?.totals.counts.failed;
  return html`<div class="filters"><${Filter} name="queue" placeholder="Queue" /><${Filter} name="name" placeholder="Task name" />
      <span class="dim small">${data ? html`${plural(sum, "FAILED task")} in ${plural(groups.length, "group")}` : ""}</span><span class="grow"></span>
      ${queue && sum > 0 && html`<button type="button" class="button" onClick=${() => bulk("retry", { queue, status: "FAILED", ...(name ? { name } : {}) }, `all FAILED of ${queue}`).then(reload)}><${Icon} name="refresh" />Retry all of ${queue}…</button>`}
      ${failed > 0 && html`<a class="button" href=${to("tasks", { status: "FAILED" })}>All FAILED tasks</a>`}</div>
    ${error && html`<${Problem} error=${error} />`}
    ${groups.length ? html`<ul class="groups">${groups.map((one) => html`<${Group} key=${one.key} one=${one} open=${open === one.key} onOpen=${() => setOpen(open === one.key ? null : one.key)} reload=${reload} />`)}</ul>`
      : data && !error && html`<section class="panel"><${Empty} title="Nothing is dead">Tasks that failed for good are listed here, grouped by what they died of.<//></section>`}
    ${data?.more && html`<p class="dim small">Of the ${count(data.looked_at)} FAILED tasks that were submitted last; a filter by queue or task name shows others.</p>`}`;
}

function Group({ one, open, onOpen, reload }) {
  const which = { queue: one.queue, cause: one.cause };
  const about = `${one.name}: ${one.error}`;
  return html`<li class="panel group"><div class="group-line">
      <button type="button" class="group-head" aria-expanded=${String(open)} onClick=${onOpen}><span class=${cls("turn", { open })}><${Icon} name="right" /></span><span class="group-count">${count(one.count)}</span>
        <span class="grow stack none"><span class="group-error mono">${one.error}</span><span class="dim small">${one.name} in ${one.queue} · ${one.reason} · first <${Ago} at=${one.first_at} /> ago, last <${Ago} at=${one.last_at} /> ago</span></span></button>
      <div class="row nowrap-row"><button type="button" class="button small" onClick=${() => bulk("retry", which, about).then(reload)}><${Icon} name="refresh" />Retry…</button>
        <button type="button" class="button small danger" onClick=${() => bulk("forget", which, about).then(reload)}>Forget…</button></div></div>
    ${open && html`<${Sample} one=${one} />`}</li>`;
}

function Sample({ one }) {
  const { data, error } = useResource((signal) => get(path("tasks", one.sample_id), { consistency: "local" }, { signal }), [one.sample_id]);
  const last = data?.errors.at(-1);
  return html`<div class="sample">${error && html`<${Problem} error=${error} />`}
    ${data && html`<p class="small dim">The one that failed last, <a class="mono" href=${to("tasks", one.sample_id)}>${one.sample_id}</a>:</p>
      <${Code} text=${last ? last.traceback || `${last.type}: ${last.message}` : `${data.reason}: no error was reported.`} keep />`}
    <p class="small"><a href=${to("tasks", { status: "FAILED", queue: one.queue, name: one.name })}>All FAILED ${one.name} of ${one.queue}</a></p></div>`;
}
