// The keyboard. Single letters act only where nobody types; "g" and a letter goes to a page.
const single = new Map(), after_g = new Map();
let waiting = 0;

/** Bind a key ("n", "/", "j") or a sequence ("g q"); returns how to unbind it. */
export function bind(keys, action) {
  const [first, second] = keys.split(" ");
  const table = second ? after_g : single, key = second || first;
  const before = table.get(key);
  table.set(key, action);
  return () => { if (table.get(key) === action) before ? table.set(key, before) : table.delete(key); };
}

function typing(target) {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key === "Escape" && typing(event.target)) { event.preventDefault(); event.target.blur(); return; } // and keep what was typed
  if (typing(event.target)) return;
  if (event.key === "Enter" && event.target.closest("a, button, summary, [role=tab]")) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "g" && !waiting) { waiting = setTimeout(() => { waiting = 0; }, 1200); return; }
  const action = waiting ? after_g.get(event.key) : single.get(event.key);
  clearTimeout(waiting);
  waiting = 0;
  if (action) { event.preventDefault(); action(event); }
});
