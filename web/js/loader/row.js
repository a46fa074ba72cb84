/** One line of the list. Importing it does nothing. */

import { el } from "../shared/dom.js";
import { numberField } from "../shared/number.js";
import { fileOf, folderOf, marksOf, stemOf } from "./files.js";
import { MOST, numberOf, written } from "./grammar.js";
import { thumb } from "./thumb.js";

/**
 * @typedef {import("./grammar.js").Entry} Entry
 * @typedef {import("./grammar.js").Line} Line
 * @typedef {import("./files.js").Told} Told
 *
 * @typedef {object} RowOptions
 * @property {Line} line
 * @property {Told | undefined} told
 * @property {number} place from 1
 * @property {boolean} open whether its details are shown
 * @property {(changes: Partial<Entry>, part: string) => void} onChange part: what the focus goes back to
 * @property {(raw: string) => void} onRaw
 * @property {() => void} onRemove
 * @property {() => void} onPick
 * @property {() => void} onOpen
 * @property {(event: PointerEvent) => void} onGrip
 * @property {(by: number) => void} onMove
 */

/**
 * @param {RowOptions} options
 * @returns {HTMLLIElement}
 */
export function row(options) {
  const { line, told } = options;
  const { entry } = line;
  const name = entry ? stemOf(told?.file ?? entry.file) : `line ${options.place}`;
  const item = el(
    "li",
    { class: "bl-item", "data-off": entry ? !entry.on : false, "data-bad": Boolean(problemOf(line, told)) },
    el(
      "div",
      { class: "bl-row" },
      grip(name, options),
      entry ? head(name, entry, options) : raw(options),
      !entry && remove(name, options),
    ),
    notes(line, told),
    entry && options.open && details(name, entry, options),
  );
  item.addEventListener("keydown", (event) => {
    if (!event.altKey || (event.key !== "ArrowUp" && event.key !== "ArrowDown")) return;
    event.preventDefault();
    options.onMove(event.key === "ArrowUp" ? -1 : 1);
  });
  return item;
}

/**
 * @param {string} name
 * @param {RowOptions} options
 */
function grip(name, { onGrip, onMove, onRemove, place }) {
  const button = el(
    "button",
    {
      type: "button",
      class: "bl-grip bl-plain",
      "data-part": "grip",
      "aria-label": `Move ${name}, number ${place}`,
      title: "Drag to move; Alt with the arrow keys moves too, Delete removes",
      on: { pointerdown: onGrip },
    },
    "\u2807",
  );
  button.addEventListener("keydown", (event) => {
    if (event.key === "Delete" || event.key === "Backspace") onRemove();
    else if (!event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      onMove(event.key === "ArrowUp" ? -1 : 1);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return button;
}

/**
 * @param {string} name
 * @param {Entry} entry
 * @param {RowOptions} options
 */
function head(name, entry, { told, open, onChange, onPick, onOpen }) {
  const file = fileOf(told?.file ?? entry.file);
  const on = el("input", {
    type: "checkbox",
    role: "switch",
    class: "bl-switch",
    checked: entry.on,
    "data-part": "on",
    "aria-label": `${name} takes part`,
    on: { change: () => onChange({ on: !entry.on }, "on") },
  });
  const title = el(
    "button",
    {
      type: "button",
      class: "bl-title bl-plain bl-grow bl-row",
      "data-part": "pick",
      title: told?.file ?? entry.file,
      on: { click: onPick },
    },
    thumb(told?.file ?? entry.file, file),
    el(
      "span",
      { class: "bl-grow" },
      el("span", { class: "bl-name" }, name),
      el("span", { class: "bl-told bl-dim" }, ...under(entry, file, told)),
    ),
  );
  title.setAttribute("aria-label", `${name}: choose another file`);
  const strength = numberField({
    label: `Strength of ${name}`,
    name: "strength",
    value: entry.strength,
    min: -MOST,
    max: MOST,
    step: 0.05,
    parse: numberOf,
    format: (value) => value.toFixed(Number.isInteger(value * 100) ? 2 : 4),
    onCommit: (value) => onChange({ strength: value }, "strength"),
  });
  const more = el(
    "button",
    {
      type: "button",
      class: "bl-plain bl-more",
      "data-part": "more",
      "aria-expanded": String(open),
      "aria-label": `More about ${name}`,
      title: "Words, CLIP strength, remove",
      on: { click: onOpen },
    },
    open ? "\u25be" : "\u25b8",
  );
  return [on, title, strength, more];
}

/**
 * @param {Entry} entry
 * @param {import("./files.js").LoraFile | undefined} file
 * @param {Told | undefined} told
 */
function under(entry, file, told) {
  const marks = file ? marksOf(file).map(({ text, title }) => el("span", { class: "bl-mark", title }, text)) : [];
  const words = entry.words || file?.words || "";
  const clip = entry.clip === null ? "" : `CLIP ${written(entry.clip)}`;
  const folder = folderOf(told?.file ?? entry.file);
  return [...marks, [words, clip, !words && !clip && folder].filter(Boolean).join(" \u00b7 ")];
}

/**
 * @param {string} name
 * @param {Entry} entry
 * @param {RowOptions} options
 */
function details(name, entry, options) {
  const { told, onChange } = options;
  const file = fileOf(told?.file ?? entry.file);
  const words = el("input", {
    class: "bl-grow",
    value: entry.words,
    placeholder: file?.words || told?.concept || "such as <zed>",
    "data-part": "words",
    "aria-label": `Words that call ${name}`,
    on: { change: (/** @type {Event} */ event) => onChange({ words: typedIn(event) }, "words") },
  });
  const clip = numberField({
    label: `Strength of ${name} on CLIP`,
    name: "clip",
    value: entry.clip ?? entry.strength,
    min: -MOST,
    max: MOST,
    step: 0.05,
    parse: numberOf,
    format: (value) => value.toFixed(Number.isInteger(value * 100) ? 2 : 4),
    onCommit: (value) => onChange({ clip: value }, "clip"),
  });
  const same = el("input", {
    type: "checkbox",
    checked: entry.clip === null,
    "data-part": "same",
    on: { change: () => onChange({ clip: entry.clip === null ? entry.strength : null }, "same") },
  });
  clip.disabled = entry.clip === null;
  return el(
    "div",
    { class: "bl-details bl-column" },
    el("label", { class: "bl-row" }, el("span", { class: "bl-label" }, "Words"), words),
    el(
      "div",
      { class: "bl-row" },
      el("span", { class: "bl-label" }, "CLIP"),
      clip,
      el("label", { class: "bl-row bl-grow" }, same, "as the model"),
      remove(name, options),
    ),
    file?.images ? el("div", { class: "bl-dim" }, `Trained on ${file.images} pictures`) : null,
  );
}

/** @param {Event} event */
const typedIn = (event) => /** @type {HTMLInputElement} */ (event.target).value;

/** @param {RowOptions} options */
function raw({ line, onRaw, place }) {
  return el("input", {
    class: "bl-grow",
    value: line.raw,
    "data-part": "raw",
    "aria-label": `Line ${place} as text`,
    on: { change: (/** @type {Event} */ event) => onRaw(typedIn(event)) },
  });
}

/**
 * @param {string} name
 * @param {RowOptions} options
 */
function remove(name, { onRemove }) {
  return el(
    "button",
    { type: "button", "data-part": "remove", "aria-label": `Remove ${name}`, on: { click: onRemove } },
    "Remove",
  );
}

/**
 * @param {Line} line
 * @param {Told | undefined} told
 */
const problemOf = (line, told) => line.problem || told?.problem || "";

/**
 * @param {Line} line
 * @param {Told | undefined} told
 */
function notes(line, told) {
  const problem = problemOf(line, told);
  return [
    problem && el("p", { class: "bl-bad" }, problem),
    ...(told?.notes ?? []).map((note) => el("p", { class: "bl-note" }, note)),
  ];
}
