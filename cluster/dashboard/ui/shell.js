// The frame of every page: navigation, what is live, and what stands above everything else.
import { html, cls, signal, computed, effect, useEffect } from "../lib/html.js";
import { overview, state, age_ms, togglePause } from "../lib/live.js";
import { route, to } from "../lib/route.js";
import { age, clock, count } from "../lib/format.js";
import { Icon, Toasts } from "./parts.js";
import { Confirm, Help, helpOpen } from "./dialog.js";
import { Jump } from "./jump.js";
import { Moving } from "./moving.js";

const PAGES = [
  ["overview", "Overview"], ["queues", "Queues"], ["tasks", "Tasks"], ["workers", "Workers"], ["topics", "Topics"],
  ["dead", "Dead"], ["submit", "Submit"], ["cluster", "Cluster"],
];

const title = computed(() => {
  const page = (PAGES.find(([key]) => key === route.value.page) || ["", "quorl"])[1];
  return `${page} · ${overview.value?.cluster || "quorl"}`;
});
const theme = signal(document.documentElement.dataset.theme || "auto");
effect(() => {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  try { theme.value === "auto" ? localStorage.removeItem("quorl.theme") : localStorage.setItem("quorl.theme", theme.value); } catch { /* no storage */ }
});

function ThemeButton() {
  const next = { auto: "light", light: "dark", dark: "auto" }[theme.value];
  const icon = { auto: "auto", light: "sun", dark: "moon" }[theme.value];
  const said = { auto: "as the system", light: "light", dark: "dark" };
  return html`<button type="button" class="button plain icon" title=${`Theme: ${said[theme.value]}; click for ${said[next]}`} aria-label=${`Theme: ${said[theme.value]}`}
    onClick=${() => { theme.value = next; }}><${Icon} name=${icon} /></button>`;
}

const tally = computed(() => {
  const totals = overview.value?.totals;
  return totals ? { dead: totals.counts.failed } : {};
});

function Side() {
  const seen = overview.value;
  const here = route.value.page;
  useEffect(() => { document.querySelector(".nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }); }, [here]);
  return html`<aside class="side" aria-label="Navigation">
    <a class="brand" href="#/overview" aria-label="quorl: overview"><img src=${new URL("../icon.svg", import.meta.url).pathname} alt="" /><span class="words">quorl<small title=${seen?.cluster}>${seen?.cluster || "\u00a0"}</small></span></a>
    <nav class="nav" aria-label="Pages">${PAGES.map(([page, label]) => html`
      <a key=${page} href=${to(page)} aria-current=${page === here ? "page" : undefined}><${Icon} name=${page} />${label}
        ${page === "dead" && tally.value.dead > 0 && html`<span class="n bad">${count(tally.value.dead)}</span>`}</a>`)}</nav>
    <div class="foot"><span>Press <kbd>?</kbd> for keys</span><a href="/docs">The API of this node</a></div></aside>`;
}

/** ● live, ◍ live but nothing can be written, ◐ paused, ○ reconnecting; with the age of what is shown. */
function Live() {
  const seen = overview.value;
  const frozen = state.value === "live" && Boolean(seen?.read_only);
  const shown = frozen ? "read-only" : state.value;
  const word = { connecting: "connecting", live: "live", "read-only": `live, ${seen?.health === "no_quorum" ? "no quorum" : "no leader"}`, paused: "paused", lost: "reconnecting" }[shown];
  const old = state.value !== "live" && age_ms.value !== null ? ` ${age(age_ms.value)} old` : "";
  const title = state.value === "paused" ? "Go on (p)" : frozen ? `This node answers, and nothing can be written: ${seen.read_only} Pause (p)` : "Pause (p)";
  return html`<button type="button" class=${cls("live", `is-${shown}`)} title=${title} onClick=${togglePause} data-state=${shown}>
    <span class="dot" aria-hidden="true"></span><span class="age">${word}${old}</span></button>`;
}

function Top() {
  const seen = overview.value;
  const { page } = route.value;
  const label = (PAGES.find(([name]) => name === page) || [page, page])[1];
  return html`<header class="top"><h1>${label}</h1>
    <div class="right"><${Jump} where="wide-only" /><${Live} />
      ${seen && html`<a class="button small node" href="#/cluster" title="The node that serves this page">${seen.node}${seen.leader === seen.node ? html` <span class="star" title="leads">★</span>` : ""}</a>`}
      <${ThemeButton} />
      <button type="button" class="button plain icon wide-only" title="Keyboard (?)" aria-label="Keyboard" onClick=${() => { helpOpen.value = true; }}><${Icon} name="help" /></button>
      ${page !== "submit" && html`<a class="button primary wide-only" href="#/submit" title="Submit a task (n)"><${Icon} name="submit" />Submit</a>`}</div></header>`;
}

/** While writes are not taken, what is shown may be old. */
function ReadOnly() {
  const seen = overview.value;
  if (!seen?.read_only || state.value === "lost") return null;
  return html`<div class="banner bad" role="alert"><b>Read-only.</b><span>${seen.read_only} Data as of ${clock(seen.as_of_at_ms)} from ${seen.node}.</span></div>`;
}

export function Shell({ children }) {
  useEffect(() => effect(() => { document.title = title.value; }), []);
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the content</a>
    <div class="frame"><${Side} />
      <div class="main"><${Top} /><${Moving} /><${ReadOnly} />
        <main class="content" id="main" tabindex="-1">${children}</main></div></div>
    <${Confirm} /><${Help} /><${Toasts} />`;
}
