// The list of LoRA files as text, one a line: `zed.safetensors | 0.8 | on | <zed>`. The same grammar as
// blocklora_core/concept/lora_list.py; tests/lora_list.json holds both to it. Nothing here needs a page.

export const MOST = 10;
// Letters of a line: what follows may take the square of them.
const MOST_LINE = 4000;
const MOST_FILES = 500;

/**
 * @typedef {{ file: string, strength: number, clip: number | null, on: boolean, words: string }} Entry
 * clip: the strength on the text encoder, null for the same.
 * @typedef {{ raw: string, end: string, entry: Entry | null, problem: string, comment: string }} Line
 * raw: the line as written; end: what ends it. entry: null for comments, empty lines and those with a problem.
 */

// Those that Python's splitlines and strip know.
const END = "\\n\\r\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029";
const ENDS = new RegExp(`\\r\\n|[${END}]`);
const SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const AROUND = new RegExp(`^${SPACE}+|${SPACE}+$`, "g");
const NUMBER = /^[+-]?(?:[0-9]+[.,]?[0-9]*(?:e[+-]?[0-9]+)?|[.,][0-9]+(?:e[+-]?[0-9]+)?|nan|inf(?:inity)?)$/i;
const COMMENT = " # ";

/** @type {Record<string, boolean>} */
const SWITCH = { on: true, true: true, yes: true, off: false, false: false, no: false };

/** @param {string} text */
const strip = (text) => text.replace(AROUND, "");

/**
 * Every line of `text`; together they give it again, letter by letter.
 * @param {string} text
 * @returns {Line[]}
 */
export function parseList(text) {
  const lines = [];
  let files = 0;
  for (let rest = text; rest; ) {
    const found = ENDS.exec(rest);
    const raw = found ? rest.slice(0, found.index) : rest;
    const end = found ? found[0] : "";
    const line = parseLine(raw, end);
    if (line.entry && ++files > MOST_FILES) {
      Object.assign(line, { entry: null, problem: `expected at most ${MOST_FILES} files in a list.` });
    }
    lines.push(line);
    rest = rest.slice(raw.length + end.length);
  }
  return lines;
}

/**
 * @param {Line[]} lines
 * @returns {string}
 */
export const textOf = (lines) => lines.map((line) => line.raw + line.end).join("");

/**
 * @param {string} raw
 * @param {string} end
 * @returns {Line}
 */
export function parseLine(raw, end) {
  if (raw.length > MOST_LINE && [...raw].length > MOST_LINE) {
    const problem = `expected a line of at most ${MOST_LINE} letters, got ${[...raw].length}.`;
    return { raw, end, entry: null, problem: raw.trimStart().startsWith("#") ? "" : problem, comment: "" };
  }
  const at = raw.indexOf(COMMENT);
  const comment = at < 0 ? "" : raw.slice(at);
  const body = strip(at < 0 ? raw : raw.slice(0, at)).replace(/^\ufeff/, "");
  /** @type {Line} */
  const line = { raw, end, entry: null, problem: "", comment };
  if (!body || body.startsWith("#")) return line;
  try {
    line.entry = entryOf(body);
  } catch (error) {
    line.problem = error instanceof Error ? error.message : String(error);
  }
  return line;
}

/**
 * @param {string} body
 * @returns {Entry}
 */
function entryOf(body) {
  const [first, ...fields] = body.split("|").map(strip);
  const file = strip(first.replace(/^["']+|["']+$/g, ""));
  if (!file) throw new Error(`expected a file before the first |, got '${body.slice(0, 60)}'.`);
  if (fields.length > 3) throw new Error("expected at most file | strength | on or off | words, got more parts.");
  /** @type {Entry} */
  const entry = { file, strength: 1, clip: null, on: true, words: "" };
  for (const [place, field] of fields.entries()) {
    if (field) take(entry, place, field);
  }
  return entry;
}

/**
 * The field at `place`; where one before it was left out, it may stand further to the left.
 * @param {Entry} entry
 * @param {number} place
 * @param {string} field
 */
function take(entry, place, field) {
  const strengths = place === 2 ? [] : strengthsOf(field);
  const on = place === 2 ? undefined : switchOf(field);
  if (place === 0 && strengths.length) {
    if (!strengths.every((number) => Math.abs(number) <= MOST)) {
      throw new Error(`expected a strength from -${MOST} to ${MOST}, got ${field}.`);
    }
    [entry.strength, entry.clip = null] = strengths;
  } else if (on !== undefined) {
    entry.on = on;
  } else if (strengths.length) {
    throw new Error(`expected on or off in the third part, got '${field}'.`);
  } else {
    if (entry.words) throw new Error(`expected one part with words, got '${entry.words}' and '${field}'.`);
    entry.words = field;
  }
}

/** @param {string} field */
const switchOf = (field) => (Object.hasOwn(SWITCH, field.toLowerCase()) ? SWITCH[field.toLowerCase()] : undefined);

/**
 * One strength, or the model's and the text encoder's; none where `field` is something else.
 * @param {string} field
 * @returns {number[]}
 */
function strengthsOf(field) {
  const parts = field.split("/").map(strip);
  if (parts.length > 2 || !parts.every((part) => NUMBER.test(part))) return [];
  return parts.map((part) => {
    const number = Number(part.replace(",", "."));
    return Number.isNaN(number) ? Infinity : number;
  });
}

/**
 * The number in `text`, null where there is none.
 * @param {string} text
 */
export function numberOf(text) {
  const [number, ...more] = strengthsOf(strip(text));
  return number === undefined || more.length ? null : number;
}

/** @param {number} number */
export const written = (number) => String(Number(number.toFixed(4)));

/**
 * @param {Entry} entry
 * @param {string} comment
 * @returns {string}
 */
export function format(entry, comment = "") {
  const clip = entry.clip === null ? "" : ` / ${written(entry.clip)}`;
  const parts = [entry.file, written(entry.strength) + clip, entry.on ? "on" : "off"];
  const words = oneLine(entry.words);
  return [...parts, ...(words ? [words] : [])].join(" | ") + comment;
}

/**
 * Words as a line can hold them.
 * @param {string} words
 */
function oneLine(words) {
  const plain = words.replaceAll("|", ",").split(/\s/);
  return plain.filter((word) => word && word !== "#").join(" ");
}

/**
 * Whether a line can name this file: one with | or a space before # in its name cannot be told from what follows.
 * @param {string} file
 */
export const canName = (file) =>
  parseLine(format({ file, strength: 1, clip: null, on: true, words: "" }), "").entry?.file === file;

/**
 * `lines` with changes to the entry at `index`; its comment stays.
 * @param {Line[]} lines
 * @param {number} index
 * @param {Partial<Entry>} changes
 */
export function changed(lines, index, changes) {
  const { entry, comment, end } = lines[index];
  if (!entry) return lines;
  return lines.with(index, parseLine(format({ ...entry, ...changes }, comment), end));
}

/**
 * `lines` with another text for the one at `index`.
 * @param {Line[]} lines
 * @param {number} index
 * @param {string} raw
 */
export const rewritten = (lines, index, raw) => lines.with(index, parseLine(raw, lines[index].end));

/**
 * `lines` without the one at `index`.
 * @param {Line[]} lines
 * @param {number} index
 */
export const without = (lines, index) => lines.toSpliced(index, 1);

/**
 * `lines` with entries for `files` at their end.
 * @param {Line[]} lines
 * @param {Entry[]} entries
 */
export function withAdded(lines, entries) {
  const last = lines.at(-1);
  const closed = last && !last.end ? lines.with(-1, { ...last, end: "\n" }) : lines;
  return [...closed, ...entries.map((entry) => parseLine(format(entry), "\n"))];
}

/**
 * `lines` with the entry at `index` moved to the place of the one at `to`. Comments and empty lines stay where they are.
 * @param {Line[]} lines
 * @param {number} index
 * @param {number} to
 */
export function moved(lines, index, to) {
  const places = lines.flatMap((line, at) => (line.entry || line.problem ? [at] : []));
  const order = places.map((at) => lines[at]);
  order.splice(places.indexOf(to), 0, ...order.splice(places.indexOf(index), 1));
  const result = [...lines];
  places.forEach((at, place) => {
    result[at] = { ...order[place], end: lines[at].end };
  });
  return result;
}
