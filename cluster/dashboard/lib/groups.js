// FAILED tasks by what they died of, as the cluster groups them: pages of a thousand tasks, joined.
import { get } from "./api.js";

/** As many pages are read; the newest. */
const PAGES = 5;

/** {items: the groups, the largest first; looked_at: how many tasks; more: whether there are others}. */
export async function deadGroups({ queue, name }, signal) {
  const groups = new Map();
  let cursor = "", looked_at = 0;
  for (let page = 0; page < PAGES && cursor !== null; page++) {
    const found = await get("/v1/dead", { queue, name, cursor }, { signal });
    for (const one of found.items) {
      const key = JSON.stringify([one.queue, one.cause]), known = groups.get(key);
      groups.set(key, known ? joined(known, one) : { ...one, key });
    }
    looked_at += found.looked_at;
    cursor = found.next;
  }
  return { items: [...groups.values()].sort((a, b) => b.count - a.count), looked_at, more: cursor !== null };
}

function joined(known, one) {
  const last = one.last_at > known.last_at ? one : known;
  return { ...known, count: known.count + one.count, first_at: one.first_at < known.first_at ? one.first_at : known.first_at, last_at: last.last_at, sample_id: last.sample_id };
}
