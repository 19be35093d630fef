// A box to publish one message.
import { html, useEffect, useState } from "../lib/html.js";
import { path, post } from "../lib/api.js";
import { curl, pyText, pyLiteral, python, shell } from "../lib/copyas.js";
import { attempt } from "./parts.js";
import { CopyAs } from "./dialog.js";
import { unsaved } from "./moving.js";

/** The text as JSON: as it stands if it is JSON, else as a string. */
function valueOf(text) {
  try { JSON.parse(text); return text.trim(); } catch { return JSON.stringify(text); }
}

export function Produce({ name }) {
  const [text, setText] = useState(""), [key, setKey] = useState(""), [shown, setShown] = useState(false);
  useEffect(() => { unsaved.value = Boolean(text); return () => { unsaved.value = false; }; }, [text]);
  const where = `${path("topics", name)}/messages`;
  const body = `{"value":${valueOf(text)}${key ? `,"key":${JSON.stringify(key)}` : ""}}`;
  const send = async (event) => {
    event.preventDefault();
    if (await attempt(() => post(where, body), (done) => `Stored in partition ${done.partition} at offset ${done.first_offset}`)) setText("");
  };
  const copies = [["curl", curl("POST", where, body)], ["Python", python(`print(client.topic(${pyText(name)}).append(${pyLiteral(valueOf(text))}${key ? `, key=${pyText(key)}` : ""}))`)], ["CLI", `printf '%s\\n' ${shell(text || "hello")} | ${shell("quorl", "topic", "produce", name, "-")}`]];
  return html`<section class="panel" aria-label="Publish"><header><h2>Publish a message</h2></header><form class="body stack" onSubmit=${send}>
    <div class="field"><label for="produce-value">Value <span class="type">${text && valueOf(text) !== text.trim() ? "sent as text" : "JSON, or plain text"}</span></label><textarea id="produce-value" class="area" rows="3" value=${text} onInput=${(event) => setText(event.target.value)} spellcheck=${false}></textarea></div>
    <div class="row"><input class="input grow" value=${key} placeholder="Key (same key, same partition)" aria-label="Key" onInput=${(event) => setKey(event.target.value)} /><button class="button primary" disabled=${!text}>Publish</button></div>
    <details open=${shown} onToggle=${(event) => setShown(event.target.open)}><summary>The same elsewhere</summary>${shown && html`<${CopyAs} copies=${copies} />`}</details></form></section>`;
}
