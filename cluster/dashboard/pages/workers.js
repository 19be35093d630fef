// The workers: who lives, who was heard when, and what each one runs.
import { html, cls } from "../lib/html.js";
import { overview } from "../lib/live.js";
import { all, get, path, post, remove } from "../lib/api.js";
import { useResource } from "../lib/resource.js";
import { clock, count, duration, now, plural, age } from "../lib/format.js";
import { route, refine, to } from "../lib/route.js";
import { curl, shell, servers } from "../lib/copyas.js";
import { Badge, Code, Empty, Filter, Problem, Segments, attempt, Ago } from "../ui/parts.js";
import { Beats } from "../ui/beats.js";
import { Drawer, confirm } from "../ui/dialog.js";
import { useCursor } from "./queues.js";
import { Waiting } from "./overview.js";

const KINDS = [["", "All"], ["ALIVE", "ALIVE"], ["DEAD", "DEAD"], ["LEFT", "LEFT"]];

/** Of those that LEFT so many are shown, the last ones. */
const LEFT_SHOWN_MAX = 50;
const LEFT_KEPT = "24 h";

/** The workers that LEFT, the last one first: the overview has only those that are there or missed. Read again when one of these goes. */
function useLeft(seen) {
  const there = (seen?.workers || []).map((one) => `${one.worker_id} ${one.status}`).join();
  const { data, error } = useResource((signal) => all("/v1/workers", { status: "LEFT" }, 2000, { signal }), [there], 10_000);
  return { left: data && [...data.items].reverse().map((one) => ({ ...one, running: [] })), error };
}

export function Workers() {
  const seen = overview.value;
  const { q = "", status = "", open } = route.value.query;
  const wanted = q.toLowerCase();
  const fits = (one) => (!status || one.status === status) && `${one.name} ${one.host} ${one.queues.join(" ")}`.toLowerCase().includes(wanted);
  const { left, error } = useLeft(seen);
  const gone = (left || []).filter(fits), quiet = gone.slice(0, LEFT_SHOWN_MAX);
  const shown = [...(seen?.workers || []).filter(fits), ...quiet];
  const cursor = useCursor(shown.map((one) => String(one.worker_id)), (id) => refine({ open: id }));
  if (!seen) return html`<${Waiting} />`;
  return html`<div class="row"><${Segments} label="Status" options=${KINDS} value=${status} onChange=${(value) => refine({ status: value })} /><${Filter} name="q" placeholder="Filter by name, host, queue" width=${230} />
      <span class="dim small">${count(seen.totals.workers_alive)} ALIVE${seen.totals.workers_dead ? html`, <span class="bad-text">${count(seen.totals.workers_dead)} DEAD</span>` : ""}${left?.length ? `, ${count(left.length)} LEFT in ${LEFT_KEPT}` : ""}, ${count(seen.totals.busy)} of ${plural(seen.totals.slots, "slot")} busy</span></div>
    <section class="panel">${!seen.workers.length && !status && !q && html`<${Nobody} />`}
      ${shown.length ? html`<div class="table-wrap" tabindex="0"><table class="workers cards"><thead><tr><th>Worker</th><th>Status</th><th>State</th><th>Queues</th><th><span class="beats-head"><span>10 min ago</span><span>Heartbeats</span><span>now</span></span></th><th class="num">Heard</th><th>Runs now</th><th class="num">Done</th><th class="num">Failed</th></tr></thead>
        <tbody>${shown.map((one) => html`<${Row} key=${one.worker_id} one=${one} current=${cursor === String(one.worker_id)} />`)}</tbody></table></div>`
      : (status || q) && html`<${Empty} title=${status !== "LEFT" || q ? "No worker fits" : left ? `No worker has left in the last ${LEFT_KEPT}` : "Loading…"} />`}
      ${seen.workers_more > 0 && html`<p class="more dim">and ${plural(seen.workers_more, "more worker")}: <code>quorl worker ls</code></p>`}
      ${gone.length > quiet.length && html`<p class="more dim">and ${count(gone.length - quiet.length)} more that LEFT: <code>quorl worker ls --status LEFT</code></p>`}
      ${error && (!status || status === "LEFT") && html`<div class="body pad"><${Problem} error=${error} /></div>`}</section>
    <p class="dim small legend-line"><span><i class="beat-key b"></i>heard</span><span><i class="beat-key m"></i>late</span><span><i class="beat-key d"></i>DEAD</span><span><i class="beat-key n"></i>not known</span><span>One cell is 10 s.</span></p>
    ${open && html`<${WorkerDrawer} key=${open} id=${open} onClose=${() => refine({ open: "" })} />`}`;
}

function Nobody() {
  return html`<${Empty} title="No workers">Tasks wait until one serves their queue. Start one:<${Code} text=${`export QUORL_SERVER=${servers()}\nquorl worker run shop:app`} keep /><//>`;
}

function Row({ one, current }) {
  const alive = one.status === "ALIVE", left = one.status === "LEFT";
  const more = one.leases - one.running.length;
  return html`<tr class=${cls("click", { "is-cursor": current, "is-left": left })} data-row=${one.worker_id} onClick=${() => refine({ open: one.worker_id })}>
    <td class="first"><a class="name-cell cut" href=${to("workers", { ...route.value.query, open: one.worker_id })} title=${one.name} onClick=${(event) => event.stopPropagation()}>${one.name}</a>
      <div class="dim small nowrap">${one.host}:${one.pid} · id ${one.worker_id}</div></td>
    <td><span class="row tight"><${Badge} word=${one.status} />${one.standby && html`<span class="tag" title=${one.active ? "It stands in for a worker that died" : "It works only in the place of a worker that died"}>stand-by${one.active ? ", active" : ""}</span>`}${one.quiet && html`<span class="tag" title="It claims nothing more">quiet</span>`}</span></td>
    <td class="nowrap">${alive ? html`<${Badge} word=${one.state} /> <span class="dim small nowrap">${one.leases}/${one.concurrency}</span>` : html`<span class="zero">–</span>`}</td>
    <td class="dim line"><span class="cut queues-cell" title=${one.queues.join(", ")}>${one.queues.join(", ")}</span></td>
    <td class="line">${left ? html`<span class="zero" title="It said that it goes, and gave back what it held">–</span>` : html`<${Beats} one=${one} />`}</td>
    <td class="num" data-label="Heard">${alive ? html`<${Ago} at=${one.heartbeat_at_ms} />` : left ? html`<${Ago} at=${one.last_heartbeat} />` : html`<span title=${clock(one.heartbeat_at_ms)}>${age(one.silent_ms)}</span>`}</td>
    <td class="runs" data-label="Runs">${one.running.length ? html`<span class="row one-line"><a class="cut" href=${to("tasks", one.running[0].id)} onClick=${(event) => event.stopPropagation()}>${one.running[0].name}</a>${one.leases > 1 && html`<span class="dim">+${count(one.leases - 1)}</span>`}</span>` : html`<span class="zero">${more > 0 ? `${more} tasks` : "–"}</span>`}</td>
    <td class="num" data-label="Done">${count(one.succeeded)}</td><td class="num" data-label="Failed">${one.failed || one.lost ? html`<span class=${one.lost ? "bad-text" : ""} title=${`${one.failed} failed, ${one.lost} lost`}>${count(one.failed)}${one.lost ? ` +${one.lost} lost` : ""}</span>` : html`<span class="zero">0</span>`}</td></tr>`;
}

// -- one worker ------------------------------------------------------------------------------------------------------
function WorkerDrawer({ id, onClose }) {
  const { data, error, reload } = useResource((signal) => get(path("workers", id), { consistency: "local" }, { signal }), [id], 2000);
  const glance = overview.value?.workers.find((one) => String(one.worker_id) === String(id));
  const head = html`<div class="stack tight"><div class="row">${data && html`<${Badge} word=${data.status} />${data.status === "ALIVE" && html`<${Badge} word=${data.state} />`}`}${data?.standby && html`<span class="tag">stand-by${data.active ? ", active" : ""}</span>`}${data?.quiet && html`<span class="tag">quiet</span>`}</div><h2 class="title">${data?.name || `Worker ${id}`}</h2></div>`;
  return html`<${Drawer} label=${`Worker ${id}`} head=${head} onClose=${onClose}>${error && html`<${Problem} error=${error} />`}
    ${data && html`<${Told} one=${data} reload=${reload} onClose=${onClose} />
      ${glance && html`<section aria-label="Heartbeats"><h3>Heartbeats of the last ten minutes</h3><${Beats} one=${glance} wide /></section>`}
      <${Running} one=${data} /><${Facts} one=${data} /><${Handlers} handlers=${data.handlers} /><${Log} one=${data} />`}<//>`;
}

function Told({ one, reload, onClose }) {
  const where = path("workers", one.worker_id);
  const ask = async (word, text, call, copies, done, after = reload) => {
    if (await confirm({ title: `${word} ${one.name}?`, text, action: word, danger: word !== "Quiet", copies })) await attempt(call, done) && after();
  };
  const runs = `${plural(one.leases, "running task")}`;
  if (one.status === "ALIVE") return html`<div class="row">
    <button type="button" class="button small" disabled=${one.quiet} onClick=${() => ask("Quiet", `It claims nothing more and finishes its ${runs}.`, () => post(`${where}/quiet`), [["CLI", shell("quorl", "worker", "quiet", one.worker_id)], ["curl", curl("POST", `${where}/quiet`)]], "It is told with its next heartbeat")}>Quiet…</button>
    <button type="button" class="button small danger" onClick=${() => ask("Terminate", `It finishes its ${runs} and ends.`, () => post(`${where}/terminate`), [["CLI", shell("quorl", "worker", "stop", one.worker_id)], ["curl", curl("POST", `${where}/terminate`)]], "It is told with its next heartbeat")}>Terminate…</button></div>`;
  if (one.status === "DEAD") return html`<div class="row"><button type="button" class="button small" onClick=${() => ask("Forget", "It is no longer listed. Its tasks went back to their queues when it died.", () => remove(where), [["curl", curl("DELETE", where)]], "Forgotten", onClose)}>Forget…</button></div>`;
  return null;
}

function Running({ one }) {
  return html`<section aria-label="Runs now"><h3>Runs now (${count(one.leases)} of ${count(one.concurrency)})</h3>${one.running.length ? html`<table><tbody>${one.running.map((task) => html`<tr key=${task.id}>
    <td><a href=${to("tasks", task.id)}>${task.name}</a></td><td class="dim">${task.queue}</td><td class="num">${duration(now.value - new Date(task.started_at).getTime())}</td></tr>`)}</tbody></table>` : html`<p class="dim">Nothing.</p>`}</section>`;
}

function Facts({ one }) {
  const facts = [["Host", `${one.host}:${one.pid}`], ["Id", one.worker_id], ["Version", one.version || "–"], ["Queues", one.queues.join(", ")], ["Registered", clock(one.registered_at)], ["Last heartbeat", clock(one.last_heartbeat, true)],
    ["Beats every", duration(one.heartbeat_ms)], ["DEAD after", duration(one.dead_after_ms)], ["Succeeded", count(one.succeeded)], ["Failed", count(one.failed)], ["Lost", count(one.lost)]];
  return html`<section aria-label="Facts"><h3>Facts</h3><dl class="facts two">${facts.map(([word, value]) => html`<div key=${word}><dt>${word}</dt><dd>${value}</dd></div>`)}</dl></section>`;
}

const Handlers = ({ handlers }) => handlers.length > 0 && html`<section aria-label="Tasks that it knows"><h3>Tasks that it knows</h3><ul class="handlers">${handlers.map((one) => html`<li key=${one.name}><code><a href=${to("submit", { name: one.name })}>${one.name}</a>${one.signature}</code>${one.doc && html`<p class="dim small">${one.doc.split("\n")[0]}</p>`}</li>`)}</ul></section>`;

const Log = ({ one }) => one.beats.length > 0 && html`<details><summary>Heartbeat log (${one.beats.length})</summary><ol class="beat-log mono small">${[...one.beats].reverse().map((at) => html`<li key=${at}>${clock(at, true)}</li>`)}</ol></details>`;
