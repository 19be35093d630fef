// Where the page is: "#/tasks/ID?status=FAILED". Every filter stands in the address, so a link shows what its sender saw.
import { signal } from "./html.js";

export const route = signal(read());

function read() {
  const text = location.hash.replace(/^#\/?/, "");
  const [path, query = ""] = text.split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  return { page: parts[0] || "overview", rest: parts.slice(1), query: Object.fromEntries(new URLSearchParams(query)) };
}

function decode(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

addEventListener("hashchange", () => { route.value = read(); });

/** An address: to("tasks", "ID", {status: "FAILED"}). Empty values are left out. */
export function to(...parts) {
  const query = typeof parts.at(-1) === "object" ? parts.pop() : {};
  const kept = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = kept.length ? `?${new URLSearchParams(kept)}` : "";
  return `#/${parts.map(encodeURIComponent).join("/")}${text}`;
}

export function go(...parts) { location.hash = to(...parts); }

/** Change what stands behind the "?", in place: going back leads to the page before, not through every letter typed. */
export function refine(changes) {
  const { page, rest, query } = route.peek();
  history.replaceState(null, "", to(page, ...rest, { ...query, ...changes }));
  route.value = read();
}
