// The page begins here: one shell, one stream, and the page that the address names.
import { html, render } from "./lib/html.js";
import { route, go } from "./lib/route.js";
import { bind } from "./lib/keys.js";
import { start, togglePause } from "./lib/live.js";
import { Shell } from "./ui/shell.js";
import { helpOpen } from "./ui/dialog.js";
import { focusJump } from "./ui/jump.js";
import { Empty } from "./ui/parts.js";
import { Overview } from "./pages/overview.js";
import { Queues } from "./pages/queues.js";
import { Tasks } from "./pages/tasks.js";
import { Workers } from "./pages/workers.js";
import { Topics } from "./pages/topics.js";
import { Dead } from "./pages/dead.js";
import { Submit } from "./pages/submit.js";
import { Cluster } from "./pages/cluster.js";

const PAGES = { overview: Overview, queues: Queues, tasks: Tasks, workers: Workers, topics: Topics, dead: Dead, submit: Submit, cluster: Cluster };

function App() {
  const Page = PAGES[route.value.page];
  return html`<${Shell}>${Page ? html`<${Page} key=${route.value.page} />` : html`<${Empty} title="There is no such page"><a href="#/overview">Overview</a><//>`}<//>`;
}

for (const [key, page] of [["o", "overview"], ["q", "queues"], ["t", "tasks"], ["w", "workers"], ["p", "topics"], ["d", "dead"], ["c", "cluster"], ["s", "submit"]])
  bind(`g ${key}`, () => go(page));
bind("n", () => go("submit"));
bind("p", togglePause);
bind("i", focusJump);
bind("?", () => { helpOpen.value = true; });
bind("/", () => {
  const field = document.querySelector("input[data-filter]");
  if (field) { field.focus(); field.select(); } else go("tasks");
});

document.getElementById("app").replaceChildren();
start();
render(html`<${App} />`, document.getElementById("app"));
