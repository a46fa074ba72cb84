/** The form of the selected box: who is in it, and how it is asked for. Importing it does nothing. */

import { el, fill, setAttribute } from "../shared/dom.js";
import { clamp } from "./geometry.js";
import { PLAIN, rounded } from "./model.js";

/**
 * @typedef {import("./model.js").Scene} Scene
 * @typedef {HTMLInputElement | HTMLTextAreaElement} Control
 * @typedef {object} Field
 * @property {"concept" | "prompt" | "negative" | "weight" | "feather"} name
 * @property {string} label
 * @property {string} tip
 * @property {"input" | "textarea"} tag
 * @property {Record<string, any>} [more] attributes
 */

/** Of a number: steps are those of the arrow keys, and what lies between them is not wrong. */
const BETWEEN = { "aria-invalid": "false" };

/** @type {Field[]} */
const FIELDS = [
  {
    name: "concept",
    label: "Who",
    tip: "The concept in this box, by its name.",
    tag: "input",
    more: { type: "text", placeholder: "<name> or words" },
  },
  {
    name: "prompt",
    label: "Prompt",
    tip: "What the box shows. {concept} stands for its concept, {scene} for the prompt of the whole picture.",
    tag: "textarea",
    more: { rows: 3, placeholder: PLAIN },
  },
  {
    name: "weight",
    label: "Weight",
    tip: "Below 1 the picture's own prompt shows through.",
    tag: "input",
    more: { type: "number", min: 0, max: 10, step: 0.05, ...BETWEEN },
  },
  {
    name: "feather",
    label: "Feather",
    tip: "Width of its soft edge, as a share of the shorter side.",
    tag: "input",
    more: { type: "number", min: 0, max: 1, step: 0.01, ...BETWEEN },
  },
  {
    name: "negative",
    label: "Negative",
    tip: "What the box must not show. Empty takes the picture's.",
    tag: "textarea",
    more: { rows: 2 },
  },
];

const HINT = [
  "Drag on the canvas to draw a box, one for each person.",
  "With keys: arrows move a box, with Alt they resize it; Delete removes it, Ctrl+D doubles it, [ and ] put it behind or before others.",
];

let forms = 0;

export class Form {
  /** @type {Map<Field["name"], Control>} */
  #controls = new Map();
  /** @type {Map<string, HTMLElement>} */
  #chips = new Map();
  #id;

  /**
   * @param {Scene} scene
   * @param {object} hooks
   * @param {() => string[]} hooks.names concepts that can be chosen
   * @param {(number: number) => string} hooks.problem what is wrong with a box; empty for nothing
   */
  constructor(scene, hooks) {
    forms += 1;
    this.#id = `bl-scene-form-${forms}`;
    this.scene = scene;
    this.hooks = hooks;
    this.title = el("div", { class: "bl-scene-title" });
    this.chips = el("div", { class: "bl-row bl-scene-chips", role: "group", "aria-label": "Concepts to choose from" });
    this.alert = el("div", { class: "bl-scene-problem", role: "alert", id: `${this.#id}-problem` });
    const [who, prompt, weight, feather, negative] = FIELDS.map((field) => this.#field(field));
    this.fields = el(
      "div",
      { class: "bl-column" },
      this.title,
      who,
      this.chips,
      this.alert,
      prompt,
      el("div", { class: "bl-row" }, weight, feather),
      negative,
    );
    this.hint = el(
      "div",
      { class: "bl-column bl-dim", id: `${this.#id}-hint` },
      HINT.map((line) => el("p", {}, line)),
    );
    this.element = el("div", { class: "bl-scene-form" }, this.hint, this.fields);
    scene.watch(() => this.render());
    this.render();
  }

  /** Id of the text that tells how to use the canvas. */
  get hintId() {
    return this.hint.id;
  }

  /** @param {Field} field */
  #field({ name, label, tip, tag, more }) {
    const id = `${this.#id}-${name}`;
    const control = /** @type {Control} */ (el(tag, { id, title: tip, spellcheck: "false", ...more }));
    control.addEventListener("input", () => this.#edit(name, control));
    control.addEventListener("change", () => this.#show(name, control));
    this.#controls.set(name, control);
    return el("div", { class: "bl-scene-field" }, el("label", { for: id, title: tip }, label), control);
  }

  /**
   * @param {Field["name"]} name
   * @param {Control} control
   */
  #edit(name, control) {
    const value = said(control);
    if (!Number.isNaN(value)) this.scene.update({ [name]: value }, `${name} ${this.scene.selected}`);
  }

  /**
   * @param {Field["name"]} name
   * @param {Control} control
   */
  #show(name, control) {
    const value = String(this.scene.current?.[name] ?? "");
    if (control.value !== value) control.value = value;
  }

  render() {
    const { scene, hooks } = this;
    const one = scene.current;
    this.fields.hidden = !one;
    this.hint.hidden = Boolean(one);
    if (!one) return;
    fill(this.title, `Box ${scene.selected + 1} of ${scene.boxes.length}`);
    for (const [name, control] of this.#controls) {
      const isBeingTyped = control === document.activeElement && [NaN, one[name]].includes(said(control));
      if (!isBeingTyped) this.#show(name, control);
    }
    const problem = hooks.problem(scene.selected);
    fill(this.alert, problem);
    const concept = this.#controls.get("concept");
    if (concept) {
      setAttribute(concept, "aria-invalid", problem ? "true" : null);
      setAttribute(concept, "aria-describedby", problem ? this.alert.id : null);
    }
    this.#offer(hooks.names(), one.concept);
  }

  /**
   * Chips keep their elements, and so the focus.
   *
   * @param {string[]} names
   * @param {string} chosen
   */
  #offer(names, chosen) {
    const offered = [...this.#chips.keys()];
    if (names.length !== offered.length || names.some((name, at) => name !== offered[at])) {
      this.#chips = new Map(names.map((name) => [name, this.#chip(name)]));
      fill(this.chips, [...this.#chips.values()]);
    }
    for (const [name, chip] of this.#chips) {
      setAttribute(chip, "aria-pressed", String(name.toLowerCase() === chosen.toLowerCase()));
    }
  }

  /** @param {string} name */
  #chip(name) {
    const choose = () => this.scene.update({ concept: name });
    return el("button", { type: "button", class: "bl-chip", on: { click: choose } }, name);
  }
}

/**
 * What a control says; of a number the nearest that may be said, NaN while it is empty or half-typed.
 *
 * @param {Control} control
 */
function said(control) {
  if (control.type !== "number") return control.value;
  const { valueAsNumber, min, max } = /** @type {HTMLInputElement} */ (control);
  return rounded(clamp(valueAsNumber, Number(min), Number(max)));
}
