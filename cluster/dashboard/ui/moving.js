// When the node that served this page is gone: say so, look for another member, and go there.
import { html, effect, signal } from "../lib/html.js";
import { overview, state, heardAt, goodbye } from "../lib/live.js";
import { clock } from "../lib/format.js";

const PROBE_MS = 1500, COUNTDOWN_S = 3;
/** {name, url, left}: the node that answered, and how many seconds until the page goes there; null while none is known. */
const found = signal(null);
/** Set while the reader has typed something that leaving would lose. */
export const unsaved = signal(false);
const staying = signal(false);

/** Whether a member answers at all: what it says cannot be read across origins, and need not be. */
async function answers(address) {
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), PROBE_MS);
  try {
    await fetch(`http://${address}/livez`, { mode: "no-cors", cache: "no-store", signal: ending.signal });
    return true;
  } catch { return false; } finally { clearTimeout(timer); }
}

function others() {
  const seen = overview.peek();
  return (seen?.members || []).filter((one) => one.name !== seen.node && one.http);
}

async function look() {
  if (state.peek() !== "lost" || found.peek()) return;
  const alive = await Promise.all(others().map(async (one) => ((await answers(one.http)) ? one : null)));
  const one = alive.find(Boolean);
  if (one && state.peek() === "lost" && !found.peek()) found.value = { name: one.name, url: `http://${one.http}`, left: COUNTDOWN_S };
}

function tick() {
  const there = found.peek();
  if (!there || staying.peek() || unsaved.peek()) return;
  if (there.left > 1) { found.value = { ...there, left: there.left - 1 }; return; }
  leave(there);
}

const leave = (there) => location.assign(`${there.url}/${location.hash}`);

effect(() => {
  if (state.value !== "lost") { found.value = null; staying.value = false; return; }
  look();
  const looking = setInterval(look, 2000), ticking = setInterval(tick, 1000);
  return () => { clearInterval(looking); clearInterval(ticking); };
});

export function Moving() {
  if (state.value !== "lost") return null;
  const seen = overview.value, there = found.value;
  const node = seen?.node || "This node";
  return html`<div class="banner warn" role="alert"><b>${node} ${goodbye.value ? "stops" : "does not answer"}.</b>
    <span>${heardAt.value ? `Data as of ${clock(heardAt.value)}. ` : ""}${there ? `${there.name} answers.` : others().length ? "Looking for another member…" : "Trying again…"}</span>
    ${there && html`<span class="actions"><button type="button" class="button small primary" onClick=${() => leave(there)}>Go to ${there.name}${staying.value || unsaved.value ? "" : ` (${there.left})`}</button>
      ${!staying.value && !unsaved.value && html`<button type="button" class="button small" onClick=${() => { staying.value = true; }}>Stay here</button>`}</span>`}</div>`;
}
