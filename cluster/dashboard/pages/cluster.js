// The members: where each one is, who leads, and handing the lead over.
import { html, cls } from "../lib/html.js";
import { overview } from "../lib/live.js";
import { get, post } from "../lib/api.js";
import { useResource } from "../lib/resource.js";
import { age, clock, count, plural } from "../lib/format.js";
import { Badge, attempt } from "../ui/parts.js";
import { confirm } from "../ui/dialog.js";
import { Map } from "../ui/map.js";
import { curl } from "../lib/copyas.js";
import { Waiting } from "./overview.js";

const TRANSFER = "/v1/cluster/leader-transfers";

export function Cluster() {
  const seen = overview.value;
  const { data } = useResource((signal) => get("/v1/cluster", {}, { signal }), [], 3000);
  const { data: history } = useResource((signal) => get("/v1/history", { step: 10 }, { signal }), [], 10_000);
  if (!seen) return html`<${Waiting} />`;
  const well = seen.members.filter((one) => one.state === "ok").length;
  const spare = well - seen.quorum, stopped = seen.health === "no_quorum";
  return html`<div class="overview-top"><section class="panel" aria-label="Map"><header><h2>${seen.cluster}</h2><${Badge} word=${seen.health} /></header><${Map} seen=${seen} /></section>
      <section class="panel" aria-label="Facts"><header><h2>Agreement</h2></header><div class="body stack wide-gap"><p class=${cls({ "bad-text": stopped, "warn-text": !stopped && spare <= 0 && seen.members.length > 1 })}>${arithmetic(seen, well, spare)}</p>
        <dl class="facts"><dt>Leader</dt><dd>${seen.leader || "none"}</dd><dt>Term</dt><dd>${count(seen.term)}</dd><dt>Entries applied at ${seen.node}</dt><dd>${count(seen.sequence)}</dd><dt>Cluster id</dt><dd class="mono small">${seen.cluster_id || "not founded yet"}</dd>
          ${data && html`<dt>Digest of the state</dt><dd class="mono small">${data.digest} <span class="dim">at ${count(data.sequence)}</span></dd>`}<dt>This page</dt><dd>comes from ${seen.node}, quorl ${seen.version}</dd></dl></div></section></div>
    <${Members} seen=${seen} /><${Leaders} history=${history} />`;
}

/** How many members are counted on, and how many more may fail, in the words of `quorl cluster check`. */
export function arithmetic(seen, well, spare) {
  const good = `${well} of ${seen.members.length} members are ok`;
  const told = `${good}, ${seen.quorum} ${seen.quorum === 1 ? "is" : "are"} needed`;
  if (!seen.cluster_id && well < seen.members.length) return `${good}: a new cluster begins once all of them are up together, and nothing can be written until then.`;
  if (seen.health === "no_quorum") return `${told}: nothing can be written.`;
  if (seen.members.length === 1) return "1 member: nothing is replicated.";
  return spare <= 0 ? `${told}: one more failure stops writes.` : `${told}: ${plural(spare, "more failure")} can be borne.`;
}

async function transfer(from, to) {
  const body = to ? { to } : {};
  const sure = await confirm({
    title: `Hand the lead to ${to}?`, action: `Let ${to} lead`, copies: [["curl", curl("POST", TRANSFER, body)]],
    text: `${from} stops taking writes for a moment, ${to} takes over in a new term. Nothing is lost; calls under way wait or are repeated.`,
  });
  if (sure) await attempt(() => post(TRANSFER, body), (done) => `${done.to} leads, after ${done.took_ms} ms`);
}

const roundTrip = (ms) => (ms === null ? "–" : `${ms < 10 ? ms.toFixed(1) : count(Math.round(ms))} ms`);

function Members({ seen }) {
  const furthest = Math.max(...seen.members.map((one) => one.sequence ?? 0));
  return html`<section class="panel flush" aria-label="Members"><header><h2>Members</h2></header><div class="table-wrap" tabindex="0"><table class="cards"><thead><tr><th>Name</th><th>Role</th><th>State</th><th class="num">Entry</th><th class="num">Lag</th><th class="num">Heard</th><th class="num" title="A message to it and back">RTT</th><th class="num">Uptime</th><th>HTTP</th><th>Raft</th><th>Version</th><th><span class="visually-hidden">Lead</span></th></tr></thead>
    <tbody>${seen.members.map((one) => html`<tr key=${one.name}><td class="first"><b>${one.name}</b>${one.name === seen.node && html` <span class="tag">this node</span>`}</td><td><${Badge} word=${one.role} /></td><td><${Badge} word=${one.state} /></td>
      <td class="num" data-label="Entry">${count(one.sequence)}</td><td class="num" data-label="Lag">${one.lag === null ? "–" : count(one.lag)}</td><td class="num" data-label="Heard">${one.name === seen.node ? "–" : one.seen_ms_ago === null ? "never" : age(one.seen_ms_ago)}</td>
      <td class="num" data-label="RTT">${roundTrip(one.rtt_ms)}</td><td class="num" data-label="Uptime">${one.uptime_ms === null ? "–" : age(one.uptime_ms)}</td>
      <td class="mono small" data-label="HTTP"><a href=${`http://${one.http}/#/cluster`}>${one.http}</a></td><td class="mono small dim" data-label="Raft">${one.raft}</td><td class="dim small gone">${one.version || "–"}</td>
      <td class="num"><button type="button" class="button small" disabled=${one.name === seen.leader || !seen.leader || one.state !== "ok"} title=${one.name === seen.leader ? "It leads already" : one.state !== "ok" ? "It is not caught up" : ""} onClick=${() => transfer(seen.leader, one.name)}>Let it lead…</button></td></tr>`)}</tbody></table></div></section>`;
}

function Leaders({ history }) {
  const marks = [...(history?.leaders || [])].reverse();
  return html`<section class="panel flush" aria-label="Who led when"><header><h2>Who led</h2><span class="right">last two hours</span></header>
    <div class="table-wrap short" tabindex="0"><table><thead><tr><th>From</th><th>Node</th><th class="num">Term</th></tr></thead><tbody>${marks.map((one) => html`<tr key=${one.term}><td>${clock(one.at_ms)}</td><td>${one.node}</td><td class="num">${count(one.term)}</td></tr>`)}</tbody></table></div></section>`;
}
