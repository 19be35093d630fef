// Calls to the node that served this page. A refusal is an exception that carries the problem document.
import { parse } from "./json.js";

export class Refused extends Error {
  constructor(problem, status) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    Object.assign(this, { code: problem.code || "unreachable", hint: problem.hint || "", title: problem.title || "", status, problem });
  }
}

/** /v1/queues/a%2Fb from path("queues", "a/b"). */
export const path = (...parts) => `/v1/${parts.map(encodeURIComponent).join("/")}`;

export function withQuery(where, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return kept.length ? `${where}?${new URLSearchParams(kept)}` : where;
}

async function call(method, where, body, { signal, key } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET") headers["Idempotency-Key"] = key || newKey();
  let answer, text;
  try {
    answer = await fetch(where, { method, headers, signal, body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body) });
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused({ title: "No answer", detail: "This node does not answer.", hint: "See the cluster map for another one." }, 0);
  }
  let found = null;
  try { found = text ? parse(text) : null; } catch { /* not JSON: something between page and node answered */ }
  if (!answer.ok) throw new Refused(found && !Array.isArray(found) ? found : { title: `HTTP ${answer.status}`, detail: text.slice(0, 200) }, answer.status);
  return found;
}

export const get = (where, query, options) => call("GET", withQuery(where, query), undefined, options);
export const post = (where, body, options) => call("POST", where, body, options);
export const patch = (where, body, options) => call("PATCH", where, body, options);
export const put = (where, body, options) => call("PUT", where, body, options);
export const remove = (where, options) => call("DELETE", where, undefined, options);

/** A write is sent under a key, so that what a proxy or the browser repeats has its effect once. */
export function newKey() {
  const dice = crypto.getRandomValues(new Uint8Array(12));
  return `ui-${Array.from(dice, (one) => one.toString(16).padStart(2, "0")).join("")}`;
}

/** All pages of a list, as far as `most` items. */
export async function all(where, query = {}, most = 2000, options = {}) {
  const items = [];
  let cursor;
  do {
    const page = await get(where, { ...query, limit: Math.min(1000, most - items.length), cursor }, options);
    items.push(...page.items);
    cursor = page.next;
  } while (cursor && items.length < most);
  return { items, more: Boolean(cursor) };
}
