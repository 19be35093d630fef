// Questions before something is changed, the keyboard's help, and the drawer at the side.
import { html, cls, signal, useEffect, useRef, useState } from "../lib/html.js";
import { bind } from "../lib/keys.js";
import { Icon, Copy, Segments } from "./parts.js";

const asked = signal(null);

/** Ask before acting. Resolves to true or false. `copies`: [[label, text]], what does the same elsewhere. */
export function confirm({ title, text, action, danger = false, copies = [] }) {
  return new Promise((resolve) => { asked.value = { title, text, action, danger, copies, resolve }; });
}

export function Confirm() {
  const question = asked.value;
  const answer = (value) => { asked.value = null; question.resolve(value); };
  if (!question) return null;
  return html`<${Modal} title=${question.title} onClose=${() => answer(false)}>
    <div class="text">${[].concat(question.text).map((line) => html`<p>${line}</p>`)}
      ${question.copies.length > 0 && html`<${CopyAs} copies=${question.copies} />`}</div>
    <div class="feet"><button type="button" class="button" onClick=${() => answer(false)}>Keep as it is</button>
      <button type="button" data-first class=${cls("button", "primary", { danger: question.danger })} onClick=${() => answer(true)}>${question.action}</button></div>
  <//>`;
}

export function Modal({ title, children, onClose }) {
  const box = useRef(null);
  useEffect(() => {
    box.current.showModal();
    box.current.querySelector("[data-first]")?.focus();
  }, []);
  const outside = (event) => { if (event.target === box.current) onClose(); };
  return html`<dialog ref=${box} class="modal" aria-label=${title} onCancel=${(event) => { event.preventDefault(); onClose(); }} onClick=${outside}>
    <div class="head">${title}</div>${children}</dialog>`;
}

/** The same thing as curl, CLI or Python: one shown at a time. */
export function CopyAs({ copies }) {
  const [at, setAt] = useState(copies[0][0]);
  const text = (copies.find(([name]) => name === at) || copies[0])[1];
  return html`<div class="stack copyas"><${Segments} label="Copy as" options=${copies.map(([name]) => [name, name])} value=${at} onChange=${setAt} />
    <div class="code"><pre tabindex="0">${text}</pre><${Copy} text=${text} title=${`Copy as ${at}`} /></div></div>`;
}

/** What slides in from the side. Escape closes it; the focus goes there and back. */
export function Drawer({ label, head, onClose, children }) {
  const box = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    box.current.focus({ preventScroll: true });
    const unbind = bind("Escape", onClose);
    return () => { unbind(); before?.focus?.({ preventScroll: true }); };
  }, []);
  return html`<aside ref=${box} class="drawer" role="region" aria-label=${label} tabindex="-1">
    <header><div class="grow">${head}</div><button type="button" class="button plain icon" aria-label="Close" title="Close (Esc)" onClick=${onClose}><${Icon} name="close" /></button></header>
    <div class="scroll" tabindex="0">${children}</div></aside>`;
}

export const helpOpen = signal(false);
const KEYS = [
  ["g o", "Overview"], ["g q", "Queues"], ["g t", "Tasks"], ["g w", "Workers"], ["g p", "Topics"], ["g d", "Dead"], ["g c", "Cluster"], ["n", "Submit a task"],
  ["i", "Find a task by its id"], ["/", "Filter"], ["j k", "Next and previous row"], ["Enter", "Open the row"], ["x", "Select the row"], ["Esc", "Close"], ["p", "Pause and go on"], ["?", "This help"],
];

export const Help = () => helpOpen.value && html`<${Modal} title="Keyboard" onClose=${() => { helpOpen.value = false; }}>
  <div class="text"><dl class="facts keys">${KEYS.map(([keys, what]) => html`<dt>${keys.split(" ").map((key) => html`<kbd>${key}</kbd> `)}</dt><dd>${what}</dd>`)}</dl></div>
  <div class="feet"><button type="button" class="button" onClick=${() => { helpOpen.value = false; }}>Close</button></div><//>`;
