// Where a task is found by its id: at the top of every page, or above the list of tasks where there is no room for that.
import { html, useState } from "../lib/html.js";
import { go, route } from "../lib/route.js";

export function Jump({ where }) {
  const [id, setId] = useState("");
  const jump = (event) => {
    event.preventDefault();
    const wanted = id.trim();
    if (!wanted) return;
    setId("");
    const { page, query } = route.peek();
    go("tasks", wanted, page === "tasks" ? query : {});
  };
  return html`<form class=${`jump ${where}`} role="search" aria-label="Find a task" onSubmit=${jump}><input class="input" type="search" data-jump value=${id} placeholder="Task id" aria-label="Task id"
    title="Type or paste a task's id, then Enter (i)" spellcheck=${false} autocomplete="off" onInput=${(event) => setId(event.target.value)} /></form>`;
}

/** Go to the field that is to be seen. */
export function focusJump() {
  const field = [...document.querySelectorAll("input[data-jump]")].find((one) => one.offsetParent !== null);
  if (field) { field.focus(); field.select(); } else go("tasks");
}
