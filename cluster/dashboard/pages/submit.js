// A form for any task that a worker knows, made from its signature; then the task is followed.
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { get, path, post } from "../lib/api.js";
import { useResource } from "../lib/resource.js";
import { overview } from "../lib/live.js";
import { route, to } from "../lib/route.js";
import { elements, members, pretty } from "../lib/json.js";
import { filled, inputOf, parameters, picks } from "../lib/signature.js";
import { submitCopies } from "../lib/copyas.js";
import { Badge, Empty, Icon, Json, Problem, Segments, attempt } from "../ui/parts.js";
import { CopyAs } from "../ui/dialog.js";
import { unsaved } from "../ui/moving.js";
import { useTask } from "./task.js";

const BLANK = { name: "", queue: "", form: true, values: {}, args: "[]", kwargs: "{}", priority: "", delay: "", max_attempts: "" };
/** So many names are offered to be clicked; all of them while one types. */
const PICKS = 12;
/** What was submitted from this page since it was loaded, the newest first. */
const followed = [];

/** Who is alive, and by name what they can run. */
async function known(signal) {
  const { items: workers } = await get("/v1/workers", { status: "ALIVE", limit: 1000 }, { signal });
  const handlers = new Map();
  for (const worker of workers) for (const one of worker.handlers) if (!handlers.has(one.name)) handlers.set(one.name, { ...one, queues: worker.queues, worker: worker.name });
  return { workers, handlers };
}

/** What will become of a task whose name the workers of its queue do not know: nothing, or an error at once. */
function misfit(name, queue, { workers, handlers }) {
  const serving = workers.filter((one) => one.queues.includes(queue));
  if (serving.some((one) => one.handlers.some((handler) => handler.name === name))) return "";
  const who = handlers.has(name) ? `No worker of ${queue} knows this name` : "No worker that is alive knows this name";
  return serving.length ? `${who}: submitted to ${queue}, it fails at once as UnknownTask.` : `${who}, and none serves ${queue}: it waits for one that does.`;
}

/** A form that looks like a task that there was before. */
async function likeTask(id) {
  const task = await get(path("tasks", id), { consistency: "local" });
  return { ...BLANK, name: task.name, queue: task.queue, args: pretty(task.args.text), kwargs: pretty(task.kwargs.text), form: false, like: task };
}

export function Submit() {
  const { query } = route.value;
  const { data: alive } = useResource(known, [], 10_000);
  const handlers = alive?.handlers;
  const [draft, setDraft] = useState({ ...BLANK, name: query.name || "", queue: query.queue || "" });
  const [sent, setSent] = useState([...followed]);
  const set = (changes) => setDraft((before) => ({ ...before, ...changes }));
  useEffect(() => { if (query.like) likeTask(query.like).then(setDraft, () => {}); }, [query.like]);
  useEffect(() => { if (draft.like && handlers?.has(draft.name)) set(asForm(draft, handlers.get(draft.name))); }, [draft.like, handlers]);
  const handler = handlers?.get(draft.name);
  const { data: last } = useResource((signal) => (draft.name ? get("/v1/tasks", { name: draft.name, limit: 1 }, { signal }) : null), [handler ? draft.name : ""]);
  const usual = (handler && last?.items[0]?.name === draft.name && last.items[0].queue) || handler?.queues[0] || "default";
  const params = useMemo(() => (handler ? parameters(handler.signature) : null), [handler?.signature]);
  const request = requestOf(draft, params, usual);
  useEffect(() => { unsaved.value = Object.values(draft.values).some(Boolean) || draft.args !== "[]"; return () => { unsaved.value = false; }; }, [draft]);
  const submit = async (event) => {
    event.preventDefault();
    let done;
    if (!await attempt(async () => { done = await post(`${path("queues", request.queue)}/tasks`, request.body); }, null)) return;
    followed.unshift({ id: done.items[0].id, name: draft.name });
    setSent([...followed]);
    set({ values: {}, like: null });
  };
  return html`<div class="submit-grid"><form class="panel" aria-label="New task" onSubmit=${submit}><header><h2>New task</h2><span class="right">${params && html`<${Segments} label="Arguments as" options=${[[true, "Form"], [false, "JSON"]]} value=${draft.form} onChange=${(form) => set(form ? { form } : { form, args: request.args, kwargs: request.kwargs })} />`}</span></header>
      <div class="body stack wide-gap"><${Which} draft=${draft} set=${set} alive=${alive} handler=${handler} queue=${request.queue} />
        ${params && draft.form ? html`<${Form} params=${params} draft=${draft} set=${set} wrong=${request.wrong} />` : html`<${RawArguments} draft=${draft} set=${set} wrong=${request.wrong} />`}
        <${Options} draft=${draft} set=${set} />
        <div class="row"><button class="button primary" disabled=${!request.ready || Boolean(overview.value?.read_only)}><${Icon} name="submit" /><span class="cut">Submit to ${request.queue}</span></button>${!request.ready && draft.name && html`<span class="dim small">${request.missing}</span>`}</div>
        ${draft.name && html`<details><summary>The same elsewhere</summary><${CopyAs} copies=${submitCopies(request)} /></details>`}</div></form>
    <section class="stack wide-gap" aria-label="Submitted from here">${sent.length ? sent.slice(0, 8).map((one) => html`<${Followed} key=${one.id} ...${one} />`)
      : html`<div class="panel"><${Empty} title="Here you will see what becomes of it">Each task that you submit is followed live.<//></div>`}</section></div>`;
}

/** The arguments of an old task as values of a form, if they fit into it. */
function asForm(draft, handler) {
  const params = parameters(handler.signature);
  const plain = params?.filter((one) => one.kind === "positional" || one.kind === "keyword") || [];
  const given = elements(draft.args), named = members(draft.kwargs);
  if (!params || given.length > plain.length || named.some(([name]) => !plain.some((one) => one.name === name))) return { like: null };
  const shown = (text, type) => (inputOf(type) === "text" && text[0] === '"' ? JSON.parse(text) : text);
  const values = Object.fromEntries([...given.map((text, at) => [plain[at].name, shown(text, plain[at].type)]), ...named.map(([name, text]) => [name, shown(text, plain.find((one) => one.name === name).type)])]);
  return { like: null, form: true, values };
}

function isJson(text, opening) {
  try { JSON.parse(text); return text.trim()[0] === opening; } catch { return false; }
}

/** What would be sent: {queue, name, args, kwargs, options, body, wrong, ready, missing}. */
function requestOf(draft, params, usual) {
  const queue = draft.queue || usual;
  const options = {};
  if (draft.priority !== "") options.priority = Number(draft.priority);
  if (draft.delay !== "") options.delay_ms = Math.round(1000 * Number(draft.delay));
  if (draft.max_attempts !== "") options.max_attempts = Number(draft.max_attempts);
  const wrong = {};
  let { args, kwargs } = draft;
  if (params && draft.form) ({ args, kwargs } = merge(filled(params, draft.values), wrong));
  else {
    if (!isJson(args, "[")) wrong.args = "a JSON array is wanted";
    if (!isJson(kwargs, "{")) wrong.kwargs = "a JSON object is wanted";
  }
  const names = Object.keys(wrong);
  const ready = Boolean(draft.name) && !names.length;
  const shown = names.length && !(params && draft.form) ? { args: "[]", kwargs: "{}" } : { args, kwargs };
  const extra = Object.entries(options).map(([key, value]) => `,"${key}":${JSON.stringify(value)}`).join("");
  return { queue, name: draft.name, ...shown, options, body: `{"name":${JSON.stringify(draft.name)},"args":${args},"kwargs":${kwargs}${extra}}`, wrong, ready, missing: names.map((name) => `${name}: ${wrong[name]}`).join("; ") };
}

function merge({ args, kwargs, wrong: found }, wrong) {
  Object.assign(wrong, found);
  return { args, kwargs };
}

function Which({ draft, set, alive, handler, queue }) {
  const handlers = alive?.handlers;
  const names = handlers ? [...handlers.keys()].sort() : [];
  const offered = picks(names);
  const queues = overview.value?.queues.map((one) => one.queue) || [];
  const note = draft.name && alive ? misfit(draft.name, queue, alive) : alive && !names.length ? "No worker is alive: give the name and the arguments as JSON." : "";
  return html`<div class="field"><label for="task-name">Task</label><input id="task-name" class="input wide" required maxlength="200" list="task-names" placeholder=${offered[0] || "shop.add"} value=${draft.name} spellcheck=${false} autocomplete="off"
      onInput=${(event) => set({ name: event.target.value, values: {} })} /><datalist id="task-names">${names.map((name) => html`<option key=${name} value=${name}>${handlers.get(name).signature}</option>`)}</datalist>
      ${!draft.name && names.length > 0 && html`<div class="row picks">${offered.slice(0, PICKS).map((name) => html`<button key=${name} type="button" class="button small" onClick=${() => set({ name, values: {} })}><span class="cut">${name}</span></button>`)}${offered.length > PICKS && html`<span class="dim small">… ${offered.length - PICKS} more</span>`}</div>`}
      ${handler && html`<span class="note"><code>${draft.name}${handler.signature}</code></span>`}<span class="note">${note}</span>${handler?.doc && html`<p class="doc">${handler.doc}</p>`}</div>
    <div class="field"><label for="task-queue">Queue</label><input id="task-queue" class="input wide" maxlength="200" list="task-queues" placeholder=${queue} value=${draft.queue} spellcheck=${false} autocomplete="off" onInput=${(event) => set({ queue: event.target.value })} />
      <datalist id="task-queues">${queues.map((name) => html`<option key=${name} value=${name} />`)}</datalist></div>`;
}

const HINTS = { number: "", text: "text, sent as it is", json: "JSON; what is not JSON is sent as text", bool: "" };

function Form({ params, draft, set, wrong }) {
  if (!params.length) return html`<p class="dim">It takes no arguments.</p>`;
  return html`<fieldset class="params"><legend class="visually-hidden">Arguments</legend>${params.map((one) => html`<${Parameter} key=${one.name} one=${one} value=${draft.values[one.name] ?? ""} wrong=${wrong[one.name]} onChange=${(value) => set({ values: { ...draft.values, [one.name]: value } })} />`)}</fieldset>`;
}

function Parameter({ one, value, wrong, onChange }) {
  const id = `param-${one.name}`, input = one.kind === "args" || one.kind === "kwargs" ? "json" : inputOf(one.type);
  const stars = { args: "*", kwargs: "**" }[one.kind] || "";
  const placeholder = one.fallback !== null ? one.fallback : one.kind === "args" ? "[…]" : one.kind === "kwargs" ? "{…}" : "";
  const said = one.fallback !== null ? `default ${one.fallback}` : stars ? "may be left out" : "";
  const shownWrong = wrong && value !== "";
  return html`<div class="field"><label for=${id}>${stars}${one.name} <span class="type">${one.type}</span>${said && html`<span class="note">${said}</span>`}</label>
    ${input === "bool" ? html`<select id=${id} class="select" value=${value} onChange=${(event) => onChange(event.target.value)}><option value="">${one.fallback === null ? "choose" : `default: ${one.fallback}`}</option><option value="true">True</option><option value="false">False</option></select>`
      : input === "number" ? html`<input id=${id} class="input wide mono" inputmode="decimal" value=${value} placeholder=${placeholder} autocomplete="off" aria-invalid=${shownWrong ? "true" : undefined} onInput=${(event) => onChange(event.target.value)} />`
      : html`<textarea id=${id} class="area" rows=${value.includes("\n") || value.length > 60 ? 4 : 1} value=${value} placeholder=${placeholder} spellcheck=${false} aria-invalid=${shownWrong ? "true" : undefined} onInput=${(event) => onChange(event.target.value)}></textarea>`}
    ${shownWrong ? html`<span class="wrong">${wrong}</span>` : HINTS[input] && html`<span class="note">${HINTS[input]}</span>`}</div>`;
}

function RawArguments({ draft, set, wrong }) {
  return html`<div class="field"><label for="raw-args">Arguments <span class="type">JSON array</span></label><textarea id="raw-args" class="area" rows="3" value=${draft.args} spellcheck=${false} onInput=${(event) => set({ args: event.target.value })}></textarea>${wrong.args && html`<span class="wrong">${wrong.args}</span>`}</div>
    <div class="field"><label for="raw-kwargs">Named arguments <span class="type">JSON object</span></label><textarea id="raw-kwargs" class="area" rows="2" value=${draft.kwargs} spellcheck=${false} onInput=${(event) => set({ kwargs: event.target.value })}></textarea>${wrong.kwargs && html`<span class="wrong">${wrong.kwargs}</span>`}</div>`;
}

function Options({ draft, set }) {
  const one = (name, label, more) => html`<div class="field"><label for=${`option-${name}`}>${label}</label><input id=${`option-${name}`} class="input wide" type="number" value=${draft[name]} ...${more} onInput=${(event) => set({ [name]: event.target.value })} /></div>`;
  return html`<details><summary>Options</summary><div class="three">${one("priority", "Priority, 0 to 9", { min: 0, max: 9, placeholder: "5" })}${one("delay", "Delay, seconds", { min: 0, step: "any", placeholder: "0" })}${one("max_attempts", "Attempts", { min: 1, max: 100, placeholder: "as the queue says" })}</div></details>`;
}

function Followed({ id, name }) {
  const { data, error } = useTask(id);
  const task = data?.task;
  const last = task?.errors.at(-1);
  return html`<article class="panel followed"><header>${task ? html`<${Badge} word=${task.status} />` : html`<span class="badge">…</span>`}<a class="cut" href=${to("tasks", id)}>${name}</a><span class="right mono">${id.slice(0, 13)}…</span></header>
    <div class="body">${error && html`<${Problem} error=${error} />`}${task?.status === "SUCCESS" ? html`<${Json} raw=${task.result} />` : last ? html`<p class="bad-text small">${last.type}: ${last.message} <span class="dim">(attempt ${task.attempts} of ${task.max_attempts})</span></p>` : html`<p class="dim small">${data?.why[0]?.detail || "\u00a0"}</p>`}</div></article>`;
}
