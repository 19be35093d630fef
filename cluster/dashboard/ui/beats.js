// When a worker was heard in the last ten minutes: one cell is ten seconds.
import { html, cls } from "../lib/html.js";
import { overview } from "../lib/live.js";
import { duration } from "../lib/format.js";

const CELL_MS = 10_000;

/** "b" heard, "m" silent for longer than it should be, "d" DEAD, "n" not there or not known, for only so many heartbeats are kept; the oldest first. */
export function cells(one, made_at_ms) {
  const { beats } = one;
  const dead_ms = one.status === "DEAD" ? one.ended_at_ms : null;
  let heard = -1;
  return [...beats].map((mark, at) => {
    const end = made_at_ms - (beats.length - 1 - at) * CELL_MS, start = end - CELL_MS;
    if (mark !== "0") { heard = at; return "b"; }
    if (at === beats.length - 1 && one.status === "ALIVE" && one.silent_ms <= 2 * one.heartbeat_ms) return "b"; // the cell has only begun
    if (heard < 0 && dead_ms === null) return "n";
    if (end <= one.registered_at_ms || (one.status === "LEFT" && one.ended_at_ms !== null && start >= one.ended_at_ms)) return "n";
    if (dead_ms !== null && end > dead_ms) return "d";
    if (heard < 0) return "n";
    return (at - heard) * CELL_MS > one.heartbeat_ms + CELL_MS || one.heartbeat_ms < CELL_MS ? "m" : "b";
  });
}

export function Beats({ one, wide }) {
  const found = cells(one, overview.value?.made_at_ms ?? 0);
  const late = found.filter((cell) => cell === "m").length;
  const label = one.status === "DEAD" ? `DEAD, silent for ${duration(one.silent_ms)}` : late ? `late for ${late * 10} s of the last ten minutes` : "heard as it should be";
  return html`<svg class=${cls("beats", { wide })} viewBox="0 0 240 16" preserveAspectRatio="none" role="img" aria-label=${label}><title>${label}</title>
    ${found.map((cell, at) => html`<rect key=${at} class=${cell} x=${at * 4 + 0.4} y=${cell === "b" ? 2 : cell === "n" ? 7.5 : cell === "m" ? 5 : 2} width="3" height=${cell === "n" ? 1 : cell === "m" ? 6 : 12} />`)}</svg>`;
}
