// FAILED tasks by what they died of: one group for a queue, a task name and an error without what differs from case to case.
import { all } from "./api.js";

/** As many as are looked at; the newest. */
export const LOOKED_AT = 5000;
// The same as `quorl dead errors` leaves aside.
const VARYING = [
  [/[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}/g, "<id>"], [/'[^']*'|"[^"]*"/g, "'…'"],
  [/\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b/g, "<hex>"], [/\d+(?:\.\d+)?/g, "N"],
];

const normalised = (error) => VARYING.reduce((text, [pattern, word]) => text.replace(pattern, word), error);

/** {items: the groups, the largest first; more: whether there are tasks that were not looked at}. */
export async function deadGroups({ queue, name }) {
  const { items, more } = await all("/v1/tasks", { status: "FAILED", queue, name }, LOOKED_AT);
  const groups = new Map();
  for (const task of items) {
    const error = normalised(task.error || task.reason || "not known"), key = JSON.stringify([task.queue, task.name, error]);
    const group = groups.get(key) || { group: key, queue: task.queue, name: task.name, reason: task.reason, error, ids: [], first_at: task.finished_at, last_at: task.finished_at, sample_id: task.id };
    group.ids.push(task.id);
    if (task.finished_at < group.first_at) group.first_at = task.finished_at;
    if (task.finished_at > group.last_at) Object.assign(group, { last_at: task.finished_at, sample_id: task.id });
    groups.set(key, group);
  }
  return { items: [...groups.values()].map((one) => ({ ...one, count: one.ids.length })).sort((a, b) => b.count - a.count), more };
}
