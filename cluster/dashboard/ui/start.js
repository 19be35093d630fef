// What to do first, on a cluster in which nothing is yet.
import { html } from "../lib/html.js";
import { servers } from "../lib/copyas.js";
import { Code } from "./parts.js";

const APP = `from quorl import App

app = App()


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y
`;

export function Start() {
  const env = `export QUORL_SERVER=${servers()}`;
  const steps = [
    ["Write a task", html`Save this as <code>shop.py</code>.`, APP],
    ["Run a worker", "It registers the functions, so that this page can offer them as a form.", `${env}\nquorl worker run shop:app`],
    ["Submit", html`In another terminal; or <a href="#/submit">from this page</a>.`, `${env}\nquorl task submit shop.add 4 5 --wait`],
    ["Or stream", "Topics keep messages; reading removes nothing.", `tail -f app.log | quorl topic produce app-log - --create`],
  ];
  return html`<section class="panel start" aria-label="What to do first"><header><h2>Nothing is here yet. What to do first</h2></header>
    <ol class="body steps">${steps.map(([title, text, code], at) => html`<li key=${title}><h3><span class="step">${at + 1}</span>${title}</h3><p class="dim small">${text}</p><${Code} text=${code} /></li>`)}</ol>
    <p class="more small dim">No program of your own yet? <code>quorl worker run quorl.demo:app</code> serves tasks to play with.</p></section>`;
}
