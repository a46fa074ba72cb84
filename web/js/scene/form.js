/** The form of the selected box: who is in it, and how it is asked for. Importing it does nothing. */

import { el, fill, setAttribute } from "../shared/dom.js";
import { PLAIN } from "./model.js";

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
    more: { type: "number", min: 0, max: 10, step: 0.05 },
  },
  {
    name: "feather",
    label: "Feather",
    tip: "Width of its soft edge, as a share of the shorter side.",
    tag: "input",
    more: { type: "number", min: 0, max: 1, step: 0.01 },
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
  /** @type {Map<string, Control>} */
  #controls = new Map();
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
    this.#controls.set(name, control);
    return el("div", { class: "bl-scene-field" }, el("label", { for: id, title: tip }, label), control);
  }

  /**
   * @param {Field["name"]} name
   * @param {Control} control
   */
  #edit(name, control) {
    const isNumber = control.type === "number";
    // An empty or half-typed number is not one yet.
    if (isNumber && (control.value === "" || !control.validity.valid)) return;
    this.scene.update({ [name]: isNumber ? Number(control.value) : control.value }, `${name} ${this.scene.selected}`);
  }

  render() {
    const { scene, hooks } = this;
    const one = scene.current;
    this.fields.hidden = !one;
    this.hint.hidden = Boolean(one);
    if (!one) return;
    fill(this.title, `Box ${scene.selected + 1} of ${scene.boxes.length}`);
    for (const [name, control] of this.#controls) {
      const value = String(one[/** @type {Field["name"]} */ (name)]);
      const isBeingTyped = control === document.activeElement && Number(control.value) === Number(value);
      if (control.value !== value && !isBeingTyped) control.value = value;
    }
    const problem = hooks.problem(scene.selected);
    fill(this.alert, problem);
    const concept = this.#controls.get("concept");
    if (concept) {
      setAttribute(concept, "aria-invalid", problem ? "true" : null);
      setAttribute(concept, "aria-describedby", problem ? this.alert.id : null);
    }
    fill(
      this.chips,
      hooks.names().map((name) => this.#chip(name, name.toLowerCase() === one.concept.toLowerCase())),
    );
  }

  /**
   * @param {string} name
   * @param {boolean} chosen
   */
  #chip(name, chosen) {
    const choose = () => this.scene.update({ concept: name });
    return el(
      "button",
      { type: "button", class: "bl-chip", "aria-pressed": String(chosen), on: { click: choose } },
      name,
    );
  }
}
