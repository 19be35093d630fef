// The same done to many tasks: first how many it would be, then the question, then the doing, page by page.
import { html, useState } from "../lib/html.js";
import { post } from "../lib/api.js";
import { count, plural } from "../lib/format.js";
import { curl, shell } from "../lib/copyas.js";
import { attempt } from "./parts.js";
import { confirm } from "./dialog.js";

const WORDS = {
  retry: ["Retry", "are queued again, with as many attempts more as their queue's default", "queued again"],
  cancel: ["Cancel", "become CANCELLED; of those that run, the workers are told", "cancelled"],
  forget: ["Forget", "are deleted with their results and history", "forgotten"],
};

const IDS_MAX = 1000;

/** All pages of one batch call, and all its ids, a thousand at once: {matched, done, refused}. */
async function run(body) {
  const sum = { matched: 0, done: 0, refused: [] };
  const { ids, ...rest } = body;
  const parts = ids ? Array.from({ length: Math.ceil(ids.length / IDS_MAX) }, (_, at) => ({ ...rest, ids: ids.slice(at * IDS_MAX, (at + 1) * IDS_MAX) })) : [rest];
  for (const part of parts) {
    for (let after = 0; after !== null;) {
      const answer = await post("/v1/tasks/batch", after ? { ...part, after } : part);
      sum.matched += answer.matched;
      sum.done += answer.done;
      sum.refused.push(...answer.refused);
      after = answer.next;
    }
  }
  return sum;
}

/** The commands that do the same; none where the command line has no word for it. */
function commands(action, { ids, queue, status, name, cause }) {
  if (ids) return action === "forget" ? [] : [["CLI", shell("quorl", "task", action, ...ids)]];
  if (action === "cancel" || !(cause || status === "FAILED")) return [];
  return [["CLI", shell("quorl", "dead", action === "retry" ? "retry" : "purge", "-q", queue, ...(name ? ["--name", name] : []), ...(cause ? ["--error", cause] : ["--all"]))]];
}

/** Do `action` to what `which` says ({ids} or filters); resolves to whether it was done. */
export async function bulk(action, which, about) {
  const [word, effect, done] = WORDS[action];
  const body = { action, ...which };
  let impact;
  if (!await attempt(async () => { impact = await run({ ...body, dry_run: true }); })) return false;
  const affected = impact.done;
  const sure = await confirm({
    title: `${word} ${about}?`, action: affected ? `${word} ${plural(affected, "task")}` : "Nothing to do", danger: action !== "retry",
    text: [affected ? `${plural(affected, "task")} ${effect}.` : "None of these tasks is in a state in which that can be done.",
      ...(impact.refused.length ? [`${plural(impact.refused.length, "task")} cannot be: another state, or gone.`] : [])],
    copies: which.ids?.length > 20 ? [] : [["curl", curl("POST", "/v1/tasks/batch", body)], ...commands(action, which)],
  });
  if (!sure || !affected) return false;
  return attempt(() => run(body), (found) => `${plural(found.done, "task")} ${done}`);
}

/** What can be done: to the picked ones, or, with a filter that the batch route knows, to all that fit. */
export function BulkBar({ list, picked, filters, total, onDone, onClear }) {
  const [busy, setBusy] = useState(false);
  const states = filters.status ? filters.status.split(",") : [];
  const fitting = !picked.size && !filters.worker_id && filters.queue && states.length === 1 && !["QUEUED", "PROCESSING"].includes(states[0]);
  if (!picked.size && !fitting) return null;
  const which = picked.size ? { ids: [...picked] } : Object.fromEntries([["queue", filters.queue], ["status", filters.status], ["name", filters.name]].filter(([, value]) => value));
  const about = picked.size ? plural(picked.size, "selected task") : `all that fit: ${Object.values(which).join(", ")}`;
  const act = async (action) => {
    setBusy(true);
    if (await bulk(action, which, about)) onDone();
    setBusy(false);
  };
  return html`<div class="bulk" role="toolbar" aria-label="What can be done to many"><b>${picked.size ? `${count(picked.size)} selected` : `All that fit${total === null ? "" : ` (${count(total)})`}`}</b>
    ${Object.entries(WORDS).filter(([action]) => picked.size || useful(action, states[0])).map(([action, [word]]) => html`<button key=${action} type="button" class=${`button small${action === "forget" ? " danger" : ""}`} disabled=${busy} onClick=${() => act(action)}>${word}…</button>`)}
    ${picked.size > 0 && html`<button type="button" class="button plain small" onClick=${onClear}>Clear</button>`}</div>`;
}

/** Whether an action can mean anything to tasks of a state. */
function useful(action, state) {
  if (!state) return true;
  const final = ["SUCCESS", "FAILED", "CANCELLED", "EXPIRED"].includes(state);
  return action === "cancel" ? !final : action === "retry" ? final && state !== "SUCCESS" : final;
}
