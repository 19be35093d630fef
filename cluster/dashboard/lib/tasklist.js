// The list of tasks as the page holds it: pages that were fetched, kept fresh by what the stream says.
import { get } from "./api.js";

export const PAGE = 200;

/** Whether a task from the stream belongs into a list with these filters. */
export function fits(task, filters) {
  return (!filters.queue || task.queue === filters.queue) && (!filters.name || task.name === filters.name)
    && (!filters.status || filters.status.split(",").includes(task.status)) && (!filters.worker_id || String(task.worker_id) === filters.worker_id);
}

/** `change` is called after every change; read `items`, `next`, `missed`, `error`, `loading`. */
export class TaskList {
  constructor(filters, change) {
    Object.assign(this, { filters, change, items: [], next: "", missed: 0, error: null, loading: false, loaded: false });
    this.index = new Map();
    this.ending = new AbortController();
  }

  /** Read anew from the top; what is shown stays until the answer is there. */
  async refresh() {
    await this.read("", (page) => { this.items = page.items; this.missed = 0; });
  }

  /** Read the next page, if there is one. Pages may be empty and still have a next. */
  async more() {
    if (this.loading || !this.next || this.error) return;
    await this.read(this.next, (page) => {
      const known = new Set(this.items.map((task) => task.id));
      this.items = this.items.concat(page.items.filter((task) => !known.has(task.id)));
    });
  }

  async read(cursor, take) {
    if (this.loading) { this.again ||= cursor === ""; return; }
    this.loading = true;
    this.change();
    try {
      const page = await get("/v1/tasks", { ...this.filters, limit: PAGE, cursor }, { signal: this.ending.signal });
      take(page);
      this.next = page.next;
      this.error = null;
      this.loaded = true;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.error = error;
    }
    this.loading = false;
    this.change();
    if (this.again) { this.again = false; await this.refresh(); }
  }

  /** Take what the stream says. New ones go on top only while the reader is there (`atTop`); else they are counted. */
  take(frame, atTop) {
    const at = new Map(this.items.map((task, index) => [task.id, index]));
    const items = this.items.slice(), fresh = [], gone = new Set(frame.gone);
    for (const task of frame.items) {
      const index = at.get(task.id), wanted = fits(task, this.filters);
      if (index !== undefined) wanted ? (items[index] = task) : gone.add(task.id);
      else if (wanted && this.filters.order !== "oldest") fresh.push(task);
    }
    fresh.sort((a, b) => (a.created_at < b.created_at ? 1 : a.created_at > b.created_at ? -1 : a.id < b.id ? 1 : -1));
    const newest = fresh.filter((task) => !items.length || task.created_at >= items[0].created_at);
    if (atTop) items.unshift(...newest); else this.missed += newest.length;
    this.missed += frame.more;
    this.items = gone.size ? items.filter((task) => !gone.has(task.id)) : items;
    this.change();
  }

  close() { this.ending.abort(); this.change = () => {}; }
}
