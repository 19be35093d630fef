// What happened when: the charts of the whole cluster, of a queue, or of a topic.
import { html, useMemo, useState } from "../lib/html.js";
import { get } from "../lib/api.js";
import { useResource } from "../lib/resource.js";
import { count } from "../lib/format.js";
import { Segments, Problem } from "./parts.js";
import { Chart } from "./chart.js";

const MINUTES_MS = 60_000;
const WINDOWS = [["10m", "10 min"], ["2h", "2 h"]];

/** The steps that a window shows. Ten minutes come by the second, if this node has watched for so long; else, and for two
 *  hours, from the replicated steps of ten seconds, which are the same at every node. */
async function ask(window, about, signal) {
  if (window === "10m") {
    const fine = await get("/v1/history", { step: 1, ...about }, { signal });
    if (fine.since_ms <= fine.at_ms[0]) return fine;
    const coarse = await get("/v1/history", { step: 10, ...about }, { signal });
    return coarse.at_ms[0] < fine.since_ms ? coarse : fine;
  }
  return get("/v1/history", { step: 10, ...about }, { signal });
}

/** [seconds, series …] as the chart takes it; counts per step become rates, by averages over `over` steps. */
function shaped(history, window, names) {
  if (!history) return [[], ...names.map(() => [])];
  const end = history.at_ms.at(-1) ?? 0, begin = window === "10m" ? end - 10 * MINUTES_MS : 0;
  const from = history.at_ms.findIndex((at) => at >= begin), start = Math.max(0, from);
  const over = history.step === 1 ? 5 : 1;
  const line = ({ name, gauge }) => {
    const values = history.counts[name];
    const found = [];
    for (let at = start; at < values.length; at++) {
      if (history.at_ms[at] <= history.since_ms) { found.push(null); continue; }
      if (gauge) { found.push(values[at]); continue; }
      let sum = 0, n = 0;
      for (let back = Math.max(0, at - over + 1); back <= at; back++) if (history.at_ms[back] > history.since_ms) { sum += values[back]; n++; }
      found.push(sum / (n * history.step));
    }
    return found;
  };
  return [history.at_ms.slice(start).map((at) => at / 1000), ...names.map(line)];
}

const RATES = [
  { name: "submitted", label: "submitted", colour: "info" }, { name: "succeeded", label: "succeeded", colour: "ok" },
  { name: "failed_attempts", label: "failed attempts", colour: "bad" },
];
const DEPTH = [{ name: "waiting", label: "waiting", colour: "warn", gauge: true, fill: true }, { name: "running", label: "running", colour: "accent", gauge: true }];
const APPENDED = [{ name: "appended", label: "messages", colour: "accent", fill: true }];

const CHARTS = { tasks: [["Throughput, tasks per second", RATES], ["Depth, tasks", DEPTH]], topics: [["Messages in, per second", APPENDED]] };

/** Charts of `kinds` ("tasks", "topics"); `about` is {queue} or {topic}, or nothing for the whole cluster. */
export function History({ about = {}, kinds = ["tasks", "topics"] }) {
  const [window, setWindow] = useState("10m");
  const [coarse, setCoarse] = useState(false);
  const read = async (signal) => {
    const found = await ask(window, about, signal);
    setCoarse(found.step === 10); // then nothing is new for ten seconds
    return found;
  };
  const { data, error } = useResource(read, [window, about.queue, about.topic], coarse ? 10_000 : 5000);
  const marks = useMemo(() => (data?.leaders || []).slice(1).map((one) => ({ at: one.at_ms / 1000, label: `★ ${one.node}` })), [data]);
  const charts = kinds.flatMap((kind) => CHARTS[kind]);
  return html`<section class="panel" aria-label="History"><header><h2>History</h2><span class="right"><span class="wide-only">★ where the leader changed</span><${Segments} label="Window" options=${WINDOWS} value=${window} onChange=${setWindow} /></span></header>
    <div class="body charts">${error && !data ? html`<${Problem} error=${error} />` : charts.map(([title, series]) => html`<${One} key=${title} title=${title} series=${series} data=${data} window=${window} marks=${marks} />`)}</div></section>`;
}

function One({ title, series, data, window, marks }) {
  const shape = useMemo(() => shaped(data, window, series), [data, window]);
  return html`<div class="one-chart"><h3>${title}</h3><${Chart} label=${title} data=${shape} series=${series} marks=${marks} format=${series[0].gauge ? count : undefined} whole=${Boolean(series[0].gauge)} /></div>`;
}
