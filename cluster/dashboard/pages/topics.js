// The topics, and one of them: its messages, who reads them and how far behind, and a box to publish.
import { html, cls, useEffect, useState } from "../lib/html.js";
import { listen, overview } from "../lib/live.js";
import { all, get, path, post } from "../lib/api.js";
import { useResource } from "../lib/resource.js";
import { shell } from "../lib/copyas.js";
import { bytes, clock, count, plural, rate } from "../lib/format.js";
import { route, to, go } from "../lib/route.js";
import { Count, Empty, Filter, Icon, Meter, Problem, attempt } from "../ui/parts.js";
import { History } from "../ui/history.js";
import { Messages } from "../ui/messages.js";
import { Produce } from "../ui/produce.js";
import { useCursor } from "./queues.js";
import { Waiting } from "./overview.js";

export function Topics() {
  const name = route.value.rest[0];
  return name === undefined ? html`<${List} />` : html`<${One} key=${name} name=${name} />`;
}

function List() {
  const seen = overview.value;
  const wanted = (route.value.query.q || "").toLowerCase();
  const topics = (seen?.topics || []).filter((one) => one.topic.toLowerCase().includes(wanted));
  const cursor = useCursor(topics.map((one) => one.topic), (name) => go("topics", name));
  if (!seen) return html`<${Waiting} />`;
  return html`<div class="row"><${Filter} name="q" placeholder="Filter by name" width=${240} /><span class="dim small">${plural(seen.totals.topics, "topic")}, ${plural(seen.totals.messages, "message")}</span><span class="grow"></span><${NewTopic} /></div>
    <section class="panel">${topics.length ? html`<div class="table-wrap" tabindex="0"><table class="cards"><thead><tr><th>Topic</th><th class="num">Partitions</th><th class="num">Messages</th><th class="num">Size</th><th class="num">In /s</th><th class="num">Consumers</th><th class="num">Worst lag</th></tr></thead>
      <tbody>${topics.map((one) => html`<tr key=${one.topic} class=${cls("click", { "is-cursor": cursor === one.topic })} data-row=${one.topic} onClick=${() => go("topics", one.topic)}>
        <td class="first"><a class="name-cell cut" href=${to("topics", one.topic)} title=${one.topic} onClick=${(event) => event.stopPropagation()}>${one.topic}</a></td><td class="num" data-label="Partitions">${count(one.partitions)}</td><td class="num" data-label="Messages">${count(one.messages)}</td><td class="num" data-label="Size">${bytes(one.bytes)}</td>
        <td class="num" data-label="In /s">${rate(one.appended_s)}</td><td class="num" data-label="Consumers"><${Count} value=${one.consumers} /></td><td class="num" data-label="Worst lag"><${Count} value=${one.worst_lag} tone=${one.worst_lag > 1000 ? "warn" : ""} /></td></tr>`)}</tbody></table></div>`
      : html`<${Empty} title=${wanted ? "No topic has that in its name" : "No topics yet"}>${!wanted && html`<code>quorl topic create app-log</code>, or the button above.`}<//>`}
      ${seen.topics_more > 0 && html`<p class="more dim">and ${plural(seen.topics_more, "more topic")}: <code>quorl topic ls</code></p>`}</section>`;
}

function NewTopic() {
  const [open, setOpen] = useState(false), [name, setName] = useState(""), [partitions, setPartitions] = useState("1");
  if (!open) return html`<button type="button" class="button" onClick=${() => setOpen(true)}>New topic</button>`;
  const create = async (event) => {
    event.preventDefault();
    if (await attempt(() => post("/v1/topics", { name, partitions: Number(partitions) }), (done) => (done.existing ? `${name} exists already, just like that` : `${name} is there`))) go("topics", name);
  };
  return html`<form class="row" onSubmit=${create}><input class="input" required maxlength="200" placeholder="Name" aria-label="Name of the topic" value=${name} onInput=${(event) => setName(event.target.value)} />
    <input class="input" style=${{ width: "76px" }} type="number" min="1" max="256" aria-label="Partitions" title="Partitions" value=${partitions} onInput=${(event) => setPartitions(event.target.value)} />
    <button class="button primary" disabled=${!name}>Create</button><button type="button" class="button plain" onClick=${() => setOpen(false)}>Cancel</button></form>`;
}

// -- one topic -------------------------------------------------------------------------------------------------------
function One({ name }) {
  const where = path("topics", name);
  const { data: info, error } = useResource((signal) => get(where, { consistency: "local" }, { signal }), [name], 2000);
  const seen = overview.value?.topics.find((one) => one.topic === name);
  const ends = useEnds(name, info);
  const back = html`<a class="button small plain" href="#/topics"><${Icon} name="left" />Topics</a>`;
  if (!info) return html`<div class="row">${back}</div>${error ? html`<${Problem} error=${error} />` : html`<${Waiting} />`}`;
  return html`<div class="row">${back}<h2 class="title cut">${name}</h2>
      <span class="dim small">${plural(info.messages, "message")} in ${plural(info.partitions, "partition")}, ${bytes(info.bytes)}${seen ? `, ${rate(seen.appended_s)}/s in` : ""}, ${plural(info.producers, "producer")}, since ${clock(info.created_at)}</span></div>
    <div class="topic-grid"><${Messages} name=${name} info=${info} ends=${ends} />
      <div class="stack wide-gap"><${Consumers} name=${name} ends=${ends} /><${Produce} name=${name} partitions=${info.partitions} /></div></div>
    <${History} about=${{ topic: name }} kinds=${["topics"]} />`;
}

/** Where each partition ends: what the topic said, and what the stream has said since. */
function useEnds(name, info) {
  const [ends, setEnds] = useState({});
  useEffect(() => {
    if (info) setEnds((before) => { const next = { ...before }; for (const one of info.details) next[one.partition] = Math.max(next[one.partition] || 0, one.next_offset); return next; });
  }, [info]);
  useEffect(() => listen("topics", (frame) => {
    const grown = frame.ends[name];
    if (grown) setEnds((before) => ({ ...before, ...grown }));
  }), [name]);
  return ends;
}

function Consumers({ name, ends }) {
  const { data, error } = useResource((signal) => all(`${path("topics", name)}/consumers`, {}, 1000), [name], 2000);
  const items = data?.items || [];
  const most = Math.max(1, ...items.map((one) => one.lag));
  return html`<section class="panel flush" aria-label="Consumers"><header><h2>Consumers</h2><span class="right">${items.length ? plural(items.length, "consumer") : ""}</span></header>
    ${error && !data ? html`<div class="body pad"><${Problem} error=${error} /></div>` : !items.length ? html`<${Empty} title=${data ? "Nobody reads it yet" : "…"}><code>${shell("quorl", "topic", "consume", name, "--register")}</code><//>` : html`<div class="table-wrap short" tabindex="0"><table class="brief">
      <thead><tr><th class="num">Id</th><th>Name</th><th class="num">Lag</th><th class="gone"><span class="visually-hidden">Share of the largest lag</span></th><th>Next offset</th></tr></thead>
      <tbody>${items.map((one) => html`<tr key=${one.consumer_id}><td class="num">${one.consumer_id}</td><td class="cut cell">${one.name || html`<span class="zero">–</span>`}</td><td class="num"><${Count} value=${one.lag} tone=${one.lag > 1000 ? "warn" : ""} /></td>
        <td class="gone"><${Meter} share=${one.lag / most} tone=${one.lag > 1000 ? "warn" : ""} label=${`lag ${one.lag}`} /></td><td class="mono small dim">${one.cursors.map((cursor) => (one.cursors.length > 1 ? `${cursor.partition}:${cursor.next_offset}` : cursor.next_offset)).join(" ")}</td></tr>`)}</tbody></table></div>`}</section>`;
}
