// A chart over time, and the small curve of a table row. Both are SVG, so that colours follow the theme by themselves.
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { rate, clock } from "../lib/format.js";

const LEFT = 40, RIGHT = 6, TOP = 8, BOTTOM = 20;
const STEPS_S = [60, 120, 300, 600, 900, 1800, 3600, 7200];

/** Round numbers from 0 to beyond `most`, about `wanted` of them; `whole` ones where nothing lies between them. */
function ticks(most, whole, wanted = 3) {
  const raw = Math.max(most, 1e-9) / wanted, size = 10 ** Math.floor(Math.log10(raw));
  const round = [1, 2, 2.5, 5, 10].map((factor) => factor * size).find((one) => one >= raw);
  const step = whole ? Math.ceil(round) : round;
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, at) => at * step);
}

/** Where values stand: x and y as functions of second and value. */
function scales(data, width, height) {
  const [times, ...lines] = data;
  const most = Math.max(1, ...lines.flat().filter((value) => value !== null)) * 1.1;
  const first = times[0] ?? 0, last = times.at(-1) ?? 1;
  return {
    first, last, most, bottom: height - BOTTOM,
    x: (second) => LEFT + ((second - first) / Math.max(1, last - first)) * (width - LEFT - RIGHT),
    y: (value) => height - BOTTOM - (value / most) * (height - TOP - BOTTOM),
  };
}

/** A path through the values; where one is missing it is interrupted. */
function draw(times, values, { x, y, bottom }, closed) {
  let path = "", begun = null;
  values.forEach((value, at) => {
    if (value !== null) path += `${begun === null ? "M" : "L"}${x(times[at]).toFixed(1)} ${y(value).toFixed(1)}`;
    if (closed && begun !== null && (value === null || at === values.length - 1)) path += `L${x(times[value === null ? at - 1 : at]).toFixed(1)} ${bottom}L${x(times[begun]).toFixed(1)} ${bottom}Z`;
    begun = value === null ? null : begun ?? at;
  });
  return path;
}

/** Full minutes, as many as there is room for; by the clock of whoever looks. */
function moments({ first, last }, width) {
  const step = STEPS_S.find((one) => (last - first) / one <= width / 70) ?? STEPS_S.at(-1);
  const zone = new Date().getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((first - zone) / step) * step + zone; at <= last; at += step) found.push(at);
  return found;
}

/** `data` is [seconds, values, values …] with null where nothing is known, `whole` if they are counts; `series` [{label, colour, fill}]; `marks` [{at, label}]. */
export function Chart({ data, series, marks = [], height = 150, format = rate, whole = false, label }) {
  const box = useRef(null);
  const [width, setWidth] = useState(0), [at, setAt] = useState(null);
  useEffect(() => {
    const observer = new ResizeObserver(() => { if (box.current) setWidth(box.current.clientWidth); });
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  const times = data[0], scale = scales(data, width, height);
  const point = (event) => {
    const share = (event.clientX - box.current.getBoundingClientRect().left - LEFT) / Math.max(1, width - LEFT - RIGHT);
    setAt(times.length ? Math.max(0, Math.min(times.length - 1, Math.round(share * (times.length - 1)))) : null);
  };
  const shown = at !== null && at < times.length ? at : times.length - 1;
  const summary = `${label}: ${series.map((one, n) => `${one.label} ${format(data[n + 1].at(-1))}`).join(", ")}`;
  return html`<figure class="chart"><figcaption class="legend">${series.map((one, n) => html`
      <span key=${one.label}><i class="key" style=${{ background: `var(--${one.colour})` }}></i>${one.label} <b>${format(data[n + 1][shown])}</b></span>`)}
      <span class="when">${at === null || shown < 0 ? "" : clock(times[shown] * 1000)}</span></figcaption>
    <div ref=${box} class="plot" style=${{ height: `${height}px` }} onPointerMove=${point} onPointerLeave=${() => setAt(null)}>
      ${width > 0 && html`<svg width=${width} height=${height} role="img" aria-label=${summary}><${Axes} scale=${scale} width=${width} format=${format} whole=${whole} empty=${!times.length} />
        ${series.map((one, n) => html`<g key=${one.label} style=${{ color: `var(--${one.colour})` }}>${one.fill && html`<path class="area" d=${draw(times, data[n + 1], scale, true)} />`}<path class="line" d=${draw(times, data[n + 1], scale)} /></g>`)}
        <${Marks} marks=${marks} scale=${scale} width=${width} />
        ${at !== null && shown >= 0 && html`<g><line class="cursor" x1=${scale.x(times[shown])} x2=${scale.x(times[shown])} y1=${TOP} y2=${scale.bottom} />
          ${series.map((one, n) => data[n + 1][shown] !== null && html`<circle key=${one.label} r="3" cx=${scale.x(times[shown])} cy=${scale.y(data[n + 1][shown])} fill=${`var(--${one.colour})`} />`)}</g>`}</svg>`}</div></figure>`;
}

function Axes({ scale, width, format, whole, empty }) {
  if (empty) return html`<text class="tick" x=${width / 2} y=${scale.bottom / 2} text-anchor="middle">no data yet</text>`;
  return html`<g class="axes">${ticks(scale.most / 1.1, whole).map((value) => html`<line key=${value} class="grid" x1=${LEFT} x2=${width - RIGHT} y1=${scale.y(value)} y2=${scale.y(value)} /><text class="tick" x=${LEFT - 7} y=${scale.y(value) + 3.5} text-anchor="end">${format(value)}</text>`)}
    ${moments(scale, width).map((second) => html`<text key=${second} class="tick" x=${Math.min(scale.x(second), width - RIGHT - 14)} y=${scale.bottom + 15} text-anchor="middle">${clock(second * 1000).slice(-8, -3)}</text>`)}</g>`;
}

/** Where the leader changed. */
function Marks({ marks, scale, width }) {
  return html`<g class="marks">${marks.filter((mark) => mark.at >= scale.first && mark.at <= scale.last).map((mark) => {
    const x = scale.x(mark.at), late = x > width - 60;
    return html`<g key=${mark.at}><line x1=${x} x2=${x} y1=${TOP} y2=${scale.bottom} /><text x=${x + (late ? -4 : 4)} y=${TOP + 8} text-anchor=${late ? "end" : "start"}>${mark.label}</text></g>`;
  })}</g>`;
}

/** One or two small curves without axes, over the same scale. */
export function Spark({ lines, width = 96, height = 24, label }) {
  const top = Math.max(1e-9, ...lines.flatMap((one) => one.values.map((value) => value || 0)));
  const curve = ({ values }) => values.map((value, at) => `${at ? "L" : "M"}${((at / Math.max(1, values.length - 1)) * (width - 2) + 1).toFixed(1)} ${(height - 2 - ((value || 0) / top) * (height - 4)).toFixed(1)}`).join("");
  return html`<svg class="spark" width=${width} height=${height} viewBox="0 0 ${width} ${height}" role="img" aria-label=${label}>
    ${lines.map((one) => one.values.length > 1 && html`<path key=${one.colour} d=${curve(one)} fill="none" stroke="var(--${one.colour})" stroke-width="1.4" stroke-linejoin="round" />`)}</svg>`;
}
