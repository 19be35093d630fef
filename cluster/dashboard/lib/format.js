// How numbers, times and sizes are written. The same everywhere, in English, with digits that do not jump.
import { signal } from "./html.js";

const grouping = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 18204 is "18 204", with a space that does not break. */
export const count = (value) => (value === null || value === undefined ? "–" : grouping.format(value).replaceAll(",", "\u202f"));

/** A rate: one digit behind the point below ten. */
export function rate(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  if (value < 0.1) return "<\u200a0.1";
  return value < 10 ? value.toFixed(1) : count(Math.round(value));
}

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]])
    if (value >= size) return `${(value / size).toFixed(value >= 10 * size ? 0 : 1)} ${unit}`;
  return `${value} B`;
}

/** Milliseconds in the two units that matter: 4 ms, 1.2 s, 3m 04s, 2h 05m, 3d 4h. */
export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  if (ms < 0) ms = 0;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.floor(s)} s`;
  const m = Math.floor(s / 60);
  if (m < 60) return s % 60 < 1 ? `${m}m` : `${m}m ${String(Math.floor(s % 60)).padStart(2, "0")}s`;
  const h = Math.floor(m / 60);
  if (h < 48) return m % 60 ? `${h}h ${String(m % 60).padStart(2, "0")}m` : `${h}h`;
  return h % 24 ? `${Math.floor(h / 24)}d ${h % 24}h` : `${h / 24}d`;
}

/** A coarse age that changes no more than once a second: now, 12s, 3m, 2h, 4d. */
export function age(ms) {
  if (ms === null || Number.isNaN(ms)) return "–";
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 1) return "now";
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m`;
  return s < 172800 ? `${Math.floor(s / 3600)}h` : `${Math.floor(s / 86400)}d`;
}

const pad = (value, digits = 2) => String(value).padStart(digits, "0");

/** The browser's local time of a moment, with milliseconds if wanted; the date too if it is not today. */
export function clock(moment, ms = false) {
  if (moment === null || moment === undefined) return "–";
  const date = new Date(moment);
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}${ms ? `.${pad(date.getMilliseconds(), 3)}` : ""}`;
  const today = new Date(now.peek()).toDateString() === date.toDateString();
  return today ? time : `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${time}`;
}

/** The cluster's calendar in ms, as far as this page knows it: corrected by what the node said last. */
export const now = signal(Date.now());
let ahead_ms = 0;

export function nodeSays(wall_ms) {
  if (typeof wall_ms === "number") ahead_ms = wall_ms - Date.now();
}

export const nowMs = () => Date.now() + ahead_ms;
setInterval(() => { if (!document.hidden) now.value = nowMs(); }, 1000);

/** Milliseconds since a moment; follows the clock. */
export const since = (moment) => (moment ? now.value - new Date(moment).getTime() : NaN);
