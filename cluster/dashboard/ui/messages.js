// The messages of one partition: browse from anywhere, or follow the end.
import { html, cls, useEffect, useRef, useState } from "../lib/html.js";
import { get, path } from "../lib/api.js";
import { route, refine } from "../lib/route.js";
import { clock, count, plural } from "../lib/format.js";
import { spaced } from "../lib/json.js";
import { Empty, Json, Problem, Segments } from "./parts.js";
import { shell } from "../lib/copyas.js";

const PAGE = 100, TAIL_KEPT = 500;

/** Browsing from `from`, or following: then the newest messages, and those that come. */
function useMessages(name, partition, from, tail, end) {
  const [seen, setSeen] = useState({ items: [], next: null, error: null, loaded: false });
  const next = useRef(0), busy = useRef(false);
  const where = `${path("topics", name)}/messages`;
  const read = async (start, keep) => {
    if (busy.current) return;
    busy.current = true;
    try {
      const page = await get(where, { partition, from: start, limit: PAGE, consistency: "local" });
      next.current = page.next;
      setSeen((before) => ({ items: keep ? [...before.items, ...page.items].slice(-TAIL_KEPT) : page.items, next: page.next, error: null, loaded: true }));
    } catch (error) { setSeen((before) => ({ ...before, error, loaded: true })); }
    busy.current = false;
  };
  useEffect(() => {
    busy.current = false;
    if (tail && end === undefined) return;
    read(tail ? Math.max(0, end - PAGE) : from || "earliest", false);
  }, [name, partition, from, tail, end === undefined]);
  useEffect(() => { if (tail && seen.loaded && end > next.current) read(next.current, true); }, [end, seen]);
  return { ...seen, read };
}

export function Messages({ name, info, ends }) {
  const { partition: chosen = "0", from = "", view = "tail" } = route.value.query;
  const partition = Math.min(Number(chosen) || 0, info.partitions - 1), tail = view === "tail" && !from;
  const end = ends[partition];
  const { items, next, error, loaded, read } = useMessages(name, partition, from, tail, end);
  const [open, setOpen] = useState(null);
  const rows = tail ? [...items].reverse() : items;
  const tabs = [...Array(info.partitions).keys()];
  return html`<section class="panel flush messages" aria-label="Messages"><header><h2>Messages</h2>
      ${info.partitions > 1 && (info.partitions <= 8 ? html`<${Segments} scroll label="Partition" options=${tabs.map((n) => [n, `p${n}`])} value=${partition} onChange=${(n) => refine({ partition: n || "" })} />`
        : html`<label class="row small">Partition <select class="select" value=${partition} onChange=${(event) => refine({ partition: event.target.value })}>${tabs.map((n) => html`<option key=${n} value=${n}>${n}</option>`)}</select></label>`)}
      <span class="right"><${From} tail=${tail} from=${from} /></span></header>
    ${error && html`<div class="body pad"><${Problem} error=${error} /></div>`}
    ${!rows.length ? html`<${Empty} title=${loaded ? (end ? "No message from there on" : "No messages in this partition") : "…"} />` : html`<ol class="message-list" tabindex="0">${rows.map((one) => html`<${Message} key=${one.offset} one=${one} open=${open === one.offset} onOpen=${() => setOpen(open === one.offset ? null : one.offset)} />`)}</ol>`}
    <footer class="tasks-foot dim small row"><span>${tail ? html`<span class="following">following</span> the end of partition ${partition}, at offset ${count(end ?? 0)}` : `${plural(rows.length, "message")} from ${from || "the earliest"} on`}</span>
      ${!tail && items.length > 0 && next < (end ?? 0) && html`<button type="button" class="button small" onClick=${() => read(next, true)}>More</button>`}
      <span class="grow"></span><code class="wide-only">${shell("quorl", "topic", "tail", name)}</code></footer></section>`;
}

function From({ tail, from }) {
  const [text, setText] = useState(from);
  useEffect(() => setText(from), [from]);
  const jump = (event) => { event.preventDefault(); refine({ from: text.trim(), view: "browse" }); };
  return html`<${Segments} label="View" options=${[["tail", "Follow"], ["browse", "Browse"]]} value=${tail ? "tail" : "browse"} onChange=${(view) => refine({ view: view === "tail" ? "" : view, from: "" })} />
    <form onSubmit=${jump}><input class="input from" value=${text} placeholder="offset or ts:2026-…Z" aria-label="From: an offset, or ts: and a time" onInput=${(event) => setText(event.target.value)} /></form>`;
}

function Message({ one, open, onOpen }) {
  const text = String(one.value);
  return html`<li class=${cls("message", { open })}><button type="button" class="message-line" aria-expanded=${String(open)} onClick=${onOpen}>
      <span class="offset mono">${count(one.offset)}</span><span class="when dim mono">${clock(one.created_at)}</span>${one.key !== undefined && html`<span class="tag cut">${String(one.key)}</span>`}<span class="value mono cut">${spaced(text.slice(0, 400))}</span></button>
    ${open && html`<div class="message-body"><${Json} raw=${one.value} /><p class="dim small">Offset ${count(one.offset)}, stored ${clock(one.created_at, true)}${one.producer_id ? `, producer ${one.producer_id}` : ""}${one.key !== undefined ? `, key ${one.key}` : ""}${one.headers ? `, headers ${Object.entries(one.headers).map(([key, value]) => `${key}: ${value}`).join(", ")}` : ""}</p></div>`}</li>`;
}
