// Python signatures as workers register them, and what is typed into a form made from one.

/** Split at commas, or at another character, that stand outside brackets and quotes. */
function split(text, at_char = ",") {
  const parts = [];
  let depth = 0, quote = "", part = "";
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (quote) { if (char === "\\") part += text[at++]; else if (char === quote) quote = ""; }
    else if (char === "'" || char === '"') quote = char;
    else if ("([{<".includes(char)) depth++;
    else if (")]}>".includes(char)) depth--;
    if (char === at_char && depth === 0 && !quote) { parts.push(part); part = ""; } else part += text[at];
  }
  return part.trim() ? [...parts, part] : parts;
}

/** The text between the first bracket and the one that closes it. */
function inside(text) {
  let depth = 0, quote = "";
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (quote) { if (char === "\\") at++; else if (char === quote) quote = ""; }
    else if (char === "'" || char === '"') quote = char;
    else if ("([{".includes(char)) depth++;
    else if (")]}".includes(char) && --depth === 0) return text.slice(1, at);
  }
  return "";
}

/** [{name, kind: "positional" | "keyword" | "args" | "kwargs", only, type, fallback}]; null if it cannot be read.
 *  `fallback` is the default as it is written, or null where the parameter must be given. */
export function parameters(signature) {
  if (!signature.startsWith("(")) return null;
  const found = [];
  let keyword = false;
  for (const text of split(inside(signature)).map((one) => one.trim())) {
    if (text === "/") { for (const one of found) one.only = true; continue; }
    if (text === "*") { keyword = true; continue; }
    const [declared, ...written] = split(text, "=");
    const match = /^(\*{0,2})([\p{L}_][\p{L}\p{N}_]*)\s*(?::([^]*))?$/u.exec(declared.trim());
    if (!match) return null;
    const [, stars, name, type = ""] = match;
    const fallback = written.length ? written.join("=").trim() : null;
    const kind = stars === "*" ? "args" : stars === "**" ? "kwargs" : keyword ? "keyword" : "positional";
    if (stars === "*") keyword = true;
    found.push({ name, kind, only: false, type: type.trim(), fallback });
  }
  return found;
}

/** How a value of a type is typed in: "number", "bool", "text" or "json". */
export function inputOf(type) {
  const bare = type.replace(/\s*\|\s*None|^Optional\[(.*)\]$/g, "$1");
  if (bare === "bool") return "bool";
  if (bare === "str") return "text";
  return /^(int|float|int \| float|float \| int|Number)$/.test(bare) ? "number" : "json";
}

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** {text} with the JSON of what was typed, or {wrong}. Digits are kept as they were typed. */
export function jsonOf(typed, type) {
  const text = typed.trim(), input = inputOf(type);
  if (input === "text") return { text: JSON.stringify(typed) };
  if (input === "number" && text !== "null") return NUMBER.test(text) ? { text } : { wrong: `no number; ${type} is wanted` };
  try { JSON.parse(text); return { text }; } catch { /* not JSON */ }
  return /^[[{"]/.test(text) ? { wrong: "not valid JSON" } : { text: JSON.stringify(typed) };
}

/** The arguments of a filled form: {args, kwargs} as JSON texts and {wrong: {name: why}}. What is left empty and has a default is left out;
 *  behind such a gap the others go by name. */
export function filled(params, values) {
  const args = [], kwargs = [], wrong = {};
  let gap = false;
  for (const one of params) {
    const typed = values[one.name] ?? "";
    if (one.kind === "args" || one.kind === "kwargs") continue;
    if (typed === "" && (one.fallback !== null || inputOf(one.type) !== "text")) {
      if (one.fallback === null) wrong[one.name] = "must be given";
      gap ||= one.kind === "positional";
      continue;
    }
    const { text, wrong: why } = jsonOf(typed, one.type);
    if (why) wrong[one.name] = why;
    else if (one.kind === "positional" && !gap) args.push(text);
    else if (one.only) wrong[one.name] = "can only be given by position, so the ones before it must be given too";
    else kwargs.push(`${JSON.stringify(one.name)}:${text}`);
  }
  extra(params, values, args, kwargs, wrong);
  return { args: `[${args.join(",")}]`, kwargs: `{${kwargs.join(",")}}`, wrong };
}

/** What *args and **kwargs take: a JSON array and a JSON object. */
function extra(params, values, args, kwargs, wrong) {
  for (const one of params) {
    const text = (values[one.name] ?? "").trim();
    if ((one.kind !== "args" && one.kind !== "kwargs") || !text) continue;
    const fence = one.kind === "args" ? /^\[[^]*\]$/ : /^\{[^]*\}$/;
    try { JSON.parse(text); } catch { wrong[one.name] = "not valid JSON"; continue; }
    if (!fence.test(text)) wrong[one.name] = one.kind === "args" ? "a JSON array is wanted" : "a JSON object is wanted";
    else if (text.slice(1, -1).trim()) (one.kind === "args" ? args : kwargs).push(text.slice(1, -1).trim());
  }
}

/** The names that are worth offering: without those that only abbreviate another, as add does shop.add. */
export function picks(names) {
  const last = new Set(names.filter((name) => name.includes(".")).map((name) => name.slice(name.lastIndexOf(".") + 1)));
  return names.filter((name) => !last.has(name));
}
