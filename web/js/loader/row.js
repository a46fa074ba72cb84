/** One row of the list. It stays in its place and shows what stands there. Importing it does nothing. */

import { el, fill, setAttribute } from "../shared/dom.js";
import { numberField } from "../shared/number.js";
import { fileOf, folderOf, marksOf, stemOf } from "./files.js";
import { MOST, numberOf, written } from "./grammar.js";
import { thumb } from "./thumb.js";

/**
 * @typedef {import("./grammar.js").Entry} Entry
 * @typedef {import("./grammar.js").Line} Line
 * @typedef {import("./files.js").Told} Told
 *
 * @typedef {object} Actions
 * @property {(place: number, changes: Partial<Entry>) => void} change
 * @property {(place: number, raw: string) => void} rewrite
 * @property {(place: number) => void} remove
 * @property {(place: number) => void} pick
 * @property {(place: number) => void} open shows its details, or hides them
 * @property {(place: number, event: PointerEvent) => void} drag
 * @property {(place: number, to: number) => void} move
 */

const STRENGTH = { min: -MOST, max: MOST, step: 0.05, parse: numberOf };

/** @param {number} value */
const twoPlaces = (value) => (Number.isInteger(Number((value * 100).toFixed(6))) ? value.toFixed(2) : written(value));

export class Row {
  /** @type {Entry | null} */
  entry = null;

  thumb = el("span", { class: "bl-row" });
  name = el("span", { class: "bl-name" });
  under = el("span", { class: "bl-told bl-dim" });
  notes = el("div");

  /**
   * @param {number} place from 0
   * @param {Actions} actions
   */
  constructor(place, actions) {
    this.place = place;
    this.actions = actions;
    this.grip = button("grip", "\u2807", "bl-grip bl-plain");
    this.grip.title = "Drag to move; Alt with the arrow keys moves too, Delete removes";
    this.grip.addEventListener("pointerdown", (event) => actions.drag(place, event));
    this.switch = el("input", { type: "checkbox", role: "switch", class: "bl-switch", "data-part": "on" });
    this.switch.addEventListener("change", () => actions.change(place, { on: this.switch.checked }));
    this.title = button("pick", "", "bl-title bl-plain bl-grow bl-row", () => actions.pick(place));
    fill(this.title, this.thumb, el("span", { class: "bl-grow" }, this.name, this.under));
    this.strength = this.number("strength", (strength) => ({ strength }));
    this.more = button("more", "", "bl-plain bl-more", () => actions.open(place));
    this.more.title = "Words, CLIP strength, remove";
    this.raw = el("input", { class: "bl-grow", "data-part": "raw" });
    this.raw.addEventListener("change", () => actions.rewrite(place, this.raw.value));
    this.drop = button("remove", "Remove", "", () => actions.remove(place));
    this.head = el("div", { class: "bl-row bl-grow" }, this.switch, this.title, this.strength.field, this.more);
    this.broken = el("div", { class: "bl-row bl-grow" }, this.raw, this.drop);
    this.words = el("input", { class: "bl-grow", "data-part": "words" });
    // A workflow may be saved before the field is left.
    this.words.addEventListener("input", () => actions.change(place, { words: this.words.value }));
    this.clip = this.number("clip", (clip) => ({ clip }));
    this.same = el("input", { type: "checkbox", "data-part": "same" });
    this.same.addEventListener("change", () => {
      actions.change(place, { clip: this.same.checked ? null : (this.entry?.strength ?? 1) });
    });
    this.remove = button("remove", "Remove", "", () => actions.remove(place));
    this.trained = el("div", { class: "bl-dim" });
    this.details = this.makeDetails();
    const top = el("div", { class: "bl-row" }, this.grip, this.head, this.broken);
    this.element = el("li", { class: "bl-item" }, top, this.notes, this.details);
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  /**
   * @param {string} part
   * @param {(value: number) => Partial<Entry>} changes
   */
  number(part, changes) {
    return numberField({
      ...STRENGTH,
      name: part,
      format: twoPlaces,
      onCommit: (value) => this.actions.change(this.place, changes(value)),
    });
  }

  makeDetails() {
    const label = el("label", { class: "bl-row bl-grow" }, this.same, "as the model");
    return el(
      "div",
      { class: "bl-details bl-column" },
      el("label", { class: "bl-row" }, el("span", { class: "bl-label" }, "Words"), this.words),
      el("div", { class: "bl-row" }, el("span", { class: "bl-label" }, "CLIP"), this.clip.field, label, this.remove),
      this.trained,
    );
  }

  /**
   * @param {Line} line
   * @param {Told | undefined} told
   * @param {boolean} open whether its details are shown
   */
  show(line, told, open) {
    const { entry } = line;
    const problem = line.problem || told?.problem || "";
    this.entry = entry;
    const name = entry ? stemOf(told?.file ?? entry.file) : `line ${this.place + 1}`;
    setAttribute(this.grip, "aria-label", `Move ${name}, number ${this.place + 1}`);
    setAttribute(this.element, "data-off", entry ? !entry.on : false);
    setAttribute(this.element, "data-bad", Boolean(problem));
    this.head.hidden = !entry;
    this.broken.hidden = Boolean(entry);
    this.details.hidden = !entry || !open;
    const notes = (told?.notes ?? []).map((note) => el("p", { class: "bl-note" }, note));
    fill(this.notes, problem ? el("p", { class: "bl-bad" }, problem) : null, ...notes);
    if (entry) this.showEntry(name, entry, told, open);
    else this.showRaw(name, line.raw);
  }

  /**
   * @param {string} name
   * @param {Entry} entry
   * @param {Told | undefined} told
   * @param {boolean} open
   */
  showEntry(name, entry, told, open) {
    const path = told?.file ?? entry.file;
    const file = fileOf(path);
    this.switch.checked = entry.on;
    setAttribute(this.switch, "aria-label", `${name} takes part`);
    fill(this.thumb, thumb(path, file));
    this.name.textContent = name;
    fill(this.under, ...beneath(entry, file, path));
    // No label of its own: what is seen is what it is called.
    this.title.title = `${path}: choose another file`;
    this.strength.show(entry.strength, `Strength of ${name}`);
    this.more.textContent = open ? "\u25be" : "\u25b8";
    setAttribute(this.more, "aria-expanded", String(open));
    setAttribute(this.more, "aria-label", `More about ${name}`);
    if (open) this.showDetails(name, entry, file, told);
  }

  /**
   * @param {string} name
   * @param {Entry} entry
   * @param {import("./files.js").LoraFile | undefined} file
   * @param {Told | undefined} told
   */
  showDetails(name, entry, file, told) {
    put(this.words, entry.words, `Words that call ${name}`);
    setAttribute(this.words, "placeholder", file?.words || told?.concept || "such as <zed>");
    this.clip.show(entry.clip ?? entry.strength, `Strength of ${name} on CLIP`);
    this.clip.field.disabled = entry.clip === null;
    this.same.checked = entry.clip === null;
    setAttribute(this.remove, "aria-label", `Remove ${name}`);
    this.trained.textContent = file?.images ? `Trained on ${file.images} pictures` : "";
  }

  /**
   * @param {string} name
   * @param {string} raw
   */
  showRaw(name, raw) {
    put(this.raw, raw, `${name} as text`);
    setAttribute(this.drop, "aria-label", `Remove ${name}`);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const onGrip = event.target === this.grip;
    if (by && (event.altKey || onGrip)) this.actions.move(this.place, this.place + by);
    else if (onGrip && (event.key === "Delete" || event.key === "Backspace")) this.actions.remove(this.place);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/**
 * @param {string} part
 * @param {string} text
 * @param {string} kind
 * @param {() => void} [click]
 */
function button(part, text, kind, click) {
  return el("button", { type: "button", class: kind, "data-part": part, on: click ? { click } : {} }, text);
}

/**
 * A field's text and label; what somebody is typing stays.
 *
 * @param {HTMLInputElement} field
 * @param {string} text
 * @param {string} label
 */
function put(field, text, label) {
  setAttribute(field, "aria-label", label);
  if (document.activeElement === field && field.value !== field.defaultValue) return;
  field.defaultValue = text;
  field.value = text;
}

/**
 * What stands beneath a name.
 *
 * @param {Entry} entry
 * @param {import("./files.js").LoraFile | undefined} file
 * @param {string} path
 */
function beneath(entry, file, path) {
  const marks = file ? marksOf(file).map(({ text, title }) => el("span", { class: "bl-mark", title }, text)) : [];
  const words = entry.words || file?.words || "";
  const clip = entry.clip === null ? "" : `CLIP ${written(entry.clip)}`;
  return [...marks, [words || folderOf(path), clip].filter(Boolean).join(" \u00b7 ")];
}
