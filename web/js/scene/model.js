/** The scene that is edited: its boxes, which is selected, undo and redo, and the JSON that Python reads. */

import { around, moved, within } from "./geometry.js";

/**
 * @typedef {import("./geometry.js").Box} Box
 * @typedef {import("./geometry.js").Rect} Rect
 */

/** In a box's prompt: where its concept and the prompt of the whole picture go. */
export const PLAIN = "a {concept}, {scene}";

const UNREAD = "Not shown, and kept as it is until a box is drawn, which Undo takes back";
const PLACE = { x: 0, y: 0, w: 1, h: 1 };
const USUAL = { concept: "", prompt: "", negative: "", weight: 1, feather: 0 };
const ALIASES = new Map([
  ["width", "w"],
  ["height", "h"],
]);
const DIGITS = 1e4;

/**
 * The boxes of a scene's text, the picture beneath them, and whatever else stands there. SyntaxError where the text is no
 * scene. As in Python, null says nothing, and no picture keeps the boxes from being read.
 *
 * @param {string} text
 * @returns {{ boxes: Box[], picture: string }}
 */
export function parse(text) {
  const scene = (text.trim() ? JSON.parse(text) : null) ?? {};
  const whole = typeof scene === "object" && !Array.isArray(scene) ? scene : { boxes: scene };
  const boxes = whole.boxes ?? [];
  if (!Array.isArray(boxes)) throw wrong("a list of boxes", boxes);
  return { ...whole, boxes: boxes.map(box), picture: typeof whole.picture === "string" ? whole.picture : "" };
}

/**
 * @param {any} entry
 * @param {number} at
 * @returns {Box}
 */
function box(entry, at) {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
    throw wrong(`an object as box ${at + 1}`, entry);
  }
  const given = Object.entries(entry).filter(([, value]) => value !== null);
  const told = Object.fromEntries(given.map(([name, value]) => [ALIASES.get(name) ?? name, value]));
  const whole = /** @type {any} */ ({ ...PLACE, ...USUAL, ...told });
  for (const [name, usual] of Object.entries({ ...PLACE, ...USUAL })) {
    whole[name] = (typeof usual === "number" ? number : words)(`${name} of box ${at + 1}`, whole[name]);
  }
  if (!told.lasso || told.lasso.length === 0) return { ...whole, lasso: undefined };
  const lasso = corners(`lasso of box ${at + 1}`, told.lasso);
  return { ...whole, ...around(lasso), lasso };
}

/**
 * @param {string} name
 * @param {any} value
 * @returns {import("./geometry.js").Point[]}
 */
function corners(name, value) {
  const isPoint = (/** @type {any} */ one) => Array.isArray(one) && one.length === 2;
  if (!Array.isArray(value) || !value.every(isPoint)) throw wrong(`points [x, y] in ${name}`, value);
  return value.map(([x, y]) => [number(name, x), number(name, y)]);
}

/**
 * @param {string} name
 * @param {any} value
 * @returns {number}
 */
function number(name, value) {
  const found = typeof value === "string" && value.trim() ? Number(value) : value;
  if (!Number.isFinite(found)) throw wrong(`a number in ${name}`, value);
  return found;
}

/**
 * @param {string} name
 * @param {any} value
 * @returns {string}
 */
function words(name, value) {
  if (typeof value !== "string") throw wrong(`text in ${name}`, value);
  return value;
}

/**
 * @param {string} expected
 * @param {any} got
 */
const wrong = (expected, got) => new SyntaxError(`expected ${expected}, got ${JSON.stringify(got).slice(0, 40)}`);

/**
 * The text of a scene: what says nothing is left out.
 *
 * @param {Box[]} boxes
 * @param {string} picture
 * @param {object} others what else stands in it
 */
export function write(boxes, picture, others) {
  const entries = boxes.map((one) => {
    const { x, y, w, h, lasso, ...rest } = one;
    const told = Object.entries(rest).filter(([name, value]) => value !== /** @type {any} */ (USUAL)[name]);
    return { ...(lasso ? { lasso } : { x, y, w, h }), ...Object.fromEntries(told) };
  });
  const short = (/** @type {string} */ _name, /** @type {any} */ value) =>
    typeof value === "number" ? rounded(value) : value;
  const shortened = JSON.parse(JSON.stringify(entries, short));
  return JSON.stringify({ boxes: shortened, ...(picture ? { picture } : {}), ...others });
}

/**
 * A number as a scene's text has it.
 *
 * @param {number} value
 */
export function rounded(value) {
  return Math.round(value * DIGITS) / DIGITS;
}

export class Scene {
  /** @type {Box[]} */
  boxes = [];
  picture = "";
  text = "";
  /** Number of the selected box, from 0; -1 for none. */
  selected = -1;
  /** Why the text is no scene; empty where it is one. */
  problem = "";
  /** What else stands in the text, which is kept. */
  #others = {};
  /** @type {string[]} */
  #past = [];
  /** @type {string[]} */
  #future = [];
  #group = "";
  /** @type {Set<() => void>} */
  #watchers = new Set();
  #tell;

  /** @param {(text: string) => void} tell is given the text whenever it was edited here */
  constructor(tell) {
    this.#tell = tell;
  }

  /** @param {() => void} watcher is called after every change */
  watch(watcher) {
    this.#watchers.add(watcher);
  }

  changed() {
    for (const watcher of this.#watchers) watcher();
  }

  /** The selected box. */
  get current() {
    return this.boxes[this.selected];
  }

  /** @param {string} text from elsewhere: a workflow, or the host's own undo */
  read(text) {
    if (text === this.text) return;
    this.#load(text);
    this.changed();
  }

  /** @param {string} text */
  #load(text) {
    this.text = text;
    this.#others = {};
    try {
      const { boxes, picture, ...others } = parse(text);
      Object.assign(this, { boxes, picture, problem: "" });
      this.#others = others;
    } catch (error) {
      const message = error instanceof Error ? error.message : error;
      Object.assign(this, { boxes: [], picture: "", problem: `${UNREAD}: ${message}` });
    }
    if (this.selected >= this.boxes.length) this.selected = -1;
  }

  /** @param {number} index */
  select(index) {
    if (index === this.selected) return;
    this.selected = index;
    this.#group = "";
    this.changed();
  }

  /**
   * Sets boxes or the picture. Edits of one group, such as those of one drag, are undone together. Only boxes take the
   * place of a text that is no scene.
   *
   * @param {{ boxes?: Box[], picture?: string }} what
   * @param {string} [group]
   */
  edit(what, group = "") {
    if (this.problem && !what.boxes) return;
    const text = write(what.boxes ?? this.boxes, what.picture ?? this.picture, this.#others);
    if (text === this.text) return;
    if (!group || group !== this.#group) this.#past.push(this.text);
    this.#group = group;
    this.#future = [];
    this.#put(text);
  }

  /** @param {string} text */
  #put(text) {
    this.#load(text);
    this.#tell(text);
    this.changed();
  }

  /**
   * @param {Partial<Box>} patch of the selected box
   * @param {string} [group]
   */
  update(patch, group) {
    if (!this.current) return;
    this.edit({ boxes: this.boxes.map((one, at) => (at === this.selected ? { ...one, ...patch } : one)) }, group);
  }

  /**
   * @param {Rect} rect of the selected box; what it says stays
   * @param {string} [group]
   * @param {Box} [before] whose lasso is stretched into it
   */
  place(rect, group, before = this.current) {
    if (!before) return;
    const { x, y, w, h, lasso } = within(before, rect);
    this.update({ x, y, w, h, lasso }, group);
  }

  /** @param {Rect & Partial<Box>} one */
  add(one) {
    this.selected = this.boxes.length;
    this.edit({ boxes: [...this.boxes, { ...USUAL, ...one }] });
  }

  duplicate() {
    if (this.current) this.add(within(this.current, moved(this.current, 0.04, 0.04)));
  }

  remove() {
    if (!this.current) return;
    const left = this.boxes.filter((_, at) => at !== this.selected);
    this.selected = Math.min(this.selected, left.length - 1);
    this.edit({ boxes: left });
  }

  /** @param {number} by 1 for one forward, -1 for one back */
  shift(by) {
    const to = this.selected + by;
    if (!this.current || to < 0 || to >= this.boxes.length) return;
    const boxes = [...this.boxes];
    boxes.splice(to, 0, ...boxes.splice(this.selected, 1));
    this.selected = to;
    this.edit({ boxes });
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  undo() {
    this.#step(this.#past, this.#future);
  }

  redo() {
    this.#step(this.#future, this.#past);
  }

  /**
   * @param {string[]} from
   * @param {string[]} to
   */
  #step(from, to) {
    const text = from.pop();
    if (text === undefined) return;
    to.push(this.text);
    this.#group = "";
    this.#put(text);
  }
}
