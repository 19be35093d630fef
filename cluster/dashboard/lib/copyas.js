// The same call as curl, as a command, as Python: what a reader copies does what the button does.
import { path } from "./api.js";
import { elements, members, spaced } from "./json.js";
import { overview } from "./live.js";

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

export const shell = (...words) => words.map((word) => quoted(String(word))).join(" ");

/** Where commands should turn to: every member, as the cluster knows them; this node at least. */
export function servers() {
  const members = overview.peek()?.members || [];
  return members.length ? members.map((one) => `http://${one.http}`).join(",") : location.origin;
}

export function curl(method, where, body) {
  const words = ["curl"];
  if (method !== "GET" && !(method === "POST" && body !== undefined)) words.push("-X", method);
  words.push(`${location.origin}${where}`);
  if (body !== undefined) words.push("-d", typeof body === "string" ? body : JSON.stringify(body));
  return shell(...words);
}

export function python(...lines) {
  return [`from quorl.client import Client`, ``, `with Client("${servers()}") as client:`, ...lines.map((line) => `    ${line}`)].join("\n");
}

export const pyText = (text) => JSON.stringify(text);

/** How a task is submitted from elsewhere; the values of its arguments stay as they are written. */
export function submitCopies({ queue, name, args, kwargs, options = {} }) {
  const positional = elements(String(args)), named = members(String(kwargs));
  const body = `{"name":${pyText(name)},"args":${args},"kwargs":${kwargs}${Object.entries(options).map(([key, value]) => `,"${key}":${JSON.stringify(value)}`).join("")}}`;
  const flags = { priority: "--priority", max_attempts: "--attempts" };
  const words = ["quorl", "task", "submit", "-q", queue, ...named.flatMap(([key, text]) => ["--kwarg", `${key}=${text}`])];
  for (const [key, value] of Object.entries(options)) words.push(...(key === "delay_ms" ? ["--delay", `${value / 1000}s`] : [flags[key], value]));
  if (positional.some((text) => text.startsWith("-"))) words.push("--");
  const given = [pyText(name), `[${positional.map((text) => pyLiteral(spaced(text))).join(", ")}]`];
  if (named.length) given.push(`{${named.map(([key, text]) => `${pyText(key)}: ${pyLiteral(spaced(text))}`).join(", ")}}`);
  given.push(`queue=${pyText(queue)}`, ...Object.entries(options).map(([key, value]) => (key === "delay_ms" ? `delay=${value / 1000}` : `${key}=${value}`)));
  return [
    ["curl", curl("POST", `${path("queues", queue)}/tasks`, body)], ["CLI", shell(...words, name, ...positional)],
    ["Python", python(`task = client.tasks.submit(${given.join(", ")})`, "print(client.tasks.wait(task.id, timeout_s=30))")],
  ];
}

/** JSON text as a Python literal: true, false and null have other names there. */
export function pyLiteral(text) {
  const words = { true: "True", false: "False", null: "None" };
  return text.replace(/"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b/g, (token) => words[token] || token);
}

/** Copy text; also where the page is not served over a secure origin and the browser hides its clipboard. */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* not allowed: the old way */ }
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
