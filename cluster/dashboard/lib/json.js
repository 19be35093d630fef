// JSON whose values of users are never turned into JavaScript numbers: what a task was given and what it gave back is
// kept as the text that the node sent, so that 2^53 + 1 stays what it is and 1.0 does not become 1.
const USER_FIELDS = new Set(["args", "kwargs", "result", "value", "checkpoint"]);
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/** The text of a JSON value as the node sent it. */
export class Raw {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
  get isNull() { return this.text === "null"; }
}

/** Parse an answer; fields of users become Raw. Integers of the API itself stay below 2^53. */
export function parse(text) {
  return JSON.parse(lifted(text), (key, value) =>
    USER_FIELDS.has(key) && typeof value === "string" ? new Raw(value) : value);
}

/** The same JSON with each value of a user's field replaced by a string of its text. */
function lifted(text) {
  if (!/"(?:args|kwargs|result|value|checkpoint)"\s*:/.test(text)) return text;
  const out = [];
  let from = 0, field = null;
  TOKEN.lastIndex = 0;
  for (let found = TOKEN.exec(text); found; found = TOKEN.exec(text)) {
    const token = found[0];
    if (token === ":") continue;
    if (field !== null) {
      const start = found.index, end = valueEnd(text, found);
      out.push(text.slice(from, start), JSON.stringify(text.slice(start, end)));
      from = TOKEN.lastIndex = end;
      field = null;
    } else if (token[0] === '"' && USER_FIELDS.has(token.slice(1, -1)) && isKey(text, TOKEN.lastIndex)) {
      field = token;
    }
  }
  out.push(text.slice(from));
  return out.join("");
}

function isKey(text, at) {
  while (text[at] === " " || text[at] === "\n") at++;
  return text[at] === ":";
}

/** Where the value ends whose first token was found. */
function valueEnd(text, first) {
  if (first[0] !== "{" && first[0] !== "[") return first.index + first[0].length;
  let depth = 1;
  TOKEN.lastIndex = first.index + 1;
  while (depth > 0) {
    const found = TOKEN.exec(text);
    if (!found) return text.length;
    if (found[0] === "{" || found[0] === "[") depth++;
    else if (found[0] === "}" || found[0] === "]") depth--;
  }
  return TOKEN.lastIndex;
}

/** JSON text with line breaks and indentation; numbers and strings stay as they are written. */
export function pretty(text, width = 72) {
  if (text.length <= width) return spaced(text);
  const tokens = text.match(TOKEN) || [];
  const out = [];
  let depth = 0;
  const line = () => out.push("\n" + "  ".repeat(depth));
  tokens.forEach((token, at) => {
    const before = tokens[at - 1], after = tokens[at + 1];
    if (token === "{" || token === "[") {
      out.push(token);
      depth++;
      if (after !== "}" && after !== "]") line();
    } else if (token === "}" || token === "]") {
      depth--;
      if (before !== "{" && before !== "[") line();
      out.push(token);
    } else if (token === ",") { out.push(","); line(); }
    else if (token === ":") out.push(": ");
    else out.push(token);
  });
  return out.join("");
}

/** JSON text on one line, with a space after commas and colons. */
export function spaced(text) {
  return (text.match(TOKEN) || []).map((token) => (token === "," ? ", " : token === ":" ? ": " : token)).join("");
}

/** The values of a JSON array's text, each as its text. */
export function elements(text) {
  const found = [];
  TOKEN.lastIndex = text.indexOf("[") + 1;
  for (let token = TOKEN.exec(text); token && token[0] !== "]"; token = TOKEN.exec(text)) {
    if (token[0] === ",") continue;
    const end = valueEnd(text, token);
    found.push(text.slice(token.index, end));
    TOKEN.lastIndex = end;
  }
  return found;
}

/** [name, text of the value] of a JSON object's text. */
export function members(text) {
  const found = [];
  TOKEN.lastIndex = text.indexOf("{") + 1;
  for (let token = TOKEN.exec(text); token && token[0] !== "}"; token = TOKEN.exec(text)) {
    if (token[0] === ",") continue;
    const name = JSON.parse(token[0]);
    TOKEN.exec(text);
    const value = TOKEN.exec(text);
    const end = valueEnd(text, value);
    found.push([name, text.slice(value.index, end)]);
    TOKEN.lastIndex = end;
  }
  return found;
}

/** A task as people write calls: name(1, "a", key=2), cut to so many characters. */
export function callText(name, args, kwargs, most = 200) {
  const positional = args instanceof Raw && args.text[0] === "[" ? elements(args.text).map(spaced) : ["…"];
  const named = kwargs instanceof Raw && kwargs.text[0] === "{" ? members(kwargs.text).map(([key, text]) => `${key}=${spaced(text)}`) : [];
  const text = `${name}(${[...positional, ...named].join(", ")})`;
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
