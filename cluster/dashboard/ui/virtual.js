// A list of which only the rows in sight exist, so that ten thousand cost as much as thirty.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/html.js";

const SPARE = 8;

/** `row(index)` gives one row; `onEnd` is called when the last rows come near; `at` is a row to keep in sight. */
export function VirtualList({ count, height, row, onEnd, at = -1, label, onScroll }) {
  const box = useRef(null);
  const [seen, setSeen] = useState({ top: 0, space: 600 });
  const read = () => {
    if (!box.current) return;
    const { scrollTop, clientHeight } = box.current;
    setSeen((before) => (before.top === scrollTop && before.space === clientHeight ? before : { top: scrollTop, space: clientHeight }));
    onScroll?.(scrollTop);
  };
  useLayoutEffect(() => {
    const observer = new ResizeObserver(read);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (at < 0) return;
    const view = box.current;
    if (at * height < view.scrollTop) view.scrollTop = at * height;
    else if ((at + 1) * height > view.scrollTop + view.clientHeight) view.scrollTop = (at + 1) * height - view.clientHeight;
  }, [at]);
  const first = Math.max(0, Math.floor(seen.top / height) - SPARE);
  const last = Math.min(count, Math.ceil((seen.top + seen.space) / height) + SPARE);
  useEffect(() => { if (last >= count - SPARE) onEnd?.(); }, [last, count]);
  const rows = [];
  for (let index = first; index < last; index++) rows.push(row(index));
  return html`<div ref=${box} class="virtual" role="rowgroup" tabindex="0" aria-label=${label} onScroll=${read}>
    <div class="virtual-all" style=${{ height: `${count * height}px` }}><div class="virtual-rows" style=${{ transform: `translateY(${first * height}px)` }}>${rows}</div></div></div>`;
}
