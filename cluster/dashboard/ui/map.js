// The members of the cluster, who leads, and how far each one is.
import { html, cls } from "../lib/html.js";
import { age, count } from "../lib/format.js";
import { go } from "../lib/route.js";

const W = 400, H = 224, CARD_W = 124, CARD_H = 64;

/** Where members stand: always at the same place, on an ellipse, the first on top. */
function places(members) {
  const around = members.map((one, at) => -Math.PI / 2 + (2 * Math.PI * at) / members.length);
  const spread = (values, from, to) => {
    const low = Math.min(...values), high = Math.max(...values);
    return values.map((value) => (high - low < 0.01 ? (from + to) / 2 : from + ((value - low) / (high - low)) * (to - from)));
  };
  const xs = spread(around.map(Math.cos), CARD_W / 2 + 8, W - CARD_W / 2 - 8), ys = spread(around.map(Math.sin), CARD_H / 2 + 4, H - CARD_H / 2 - 4);
  return members.map((one, at) => ({ one, x: xs[at], y: ys[at] }));
}

function said(one) {
  if (one.state === "unreachable") return one.seen_ms_ago === null ? "never heard" : `silent for ${age(one.seen_ms_ago)}`;
  if (one.state === "catching_up") return "catching up";
  if (one.state === "disk_full") return "disk full";
  return one.lag ? `${count(one.lag)} behind` : "up to date";
}

export function Map({ seen }) {
  const all = places([...seen.members].sort((a, b) => (a.name < b.name ? -1 : 1)));
  const leader = all.find(({ one }) => one.name === seen.leader);
  return html`<div class="map"><svg viewBox="0 0 ${W} ${H}" role="group" aria-label="Cluster map">
    ${all.flatMap((a, n) => all.slice(n + 1).map((b) => {
      const cut = a.one.state === "unreachable" || b.one.state === "unreachable";
      return html`<line key=${`${a.one.name} ${b.one.name}`} x1=${a.x} y1=${a.y} x2=${b.x} y2=${b.y} class=${cls("edge", { cut, main: !cut && (a === leader || b === leader) })} />`;
    }))}
    ${all.map(({ one, x, y }) => html`<g key=${one.name} class=${cls("member", `is-${one.state}`, { leads: one.name === seen.leader })} transform=${`translate(${x - CARD_W / 2} ${y - CARD_H / 2})`} onClick=${() => go("cluster")}>
      <title>${`${one.name}: ${one.role}, ${one.state}, entry ${one.sequence ?? "unknown"}, ${one.http}`}</title>
      <rect width=${CARD_W} height=${CARD_H} rx="10" />
      <text class="name" x="12" y="21">${one.name}${one.name === seen.leader ? html`<tspan class="star"> ★</tspan>` : ""}</text>
      <text class="role" x=${CARD_W - 12} y="21" text-anchor="end">${one.name === seen.node ? "this node" : ""}</text>
      <text class="fact" x="12" y="38">${one.role === "unknown" ? "not heard" : one.role}${one.sequence === null ? "" : ` · ${count(one.sequence)}`}</text>
      <text class="lag" x="12" y="54">${said(one)}</text></g>`)}</svg></div>`;
}
