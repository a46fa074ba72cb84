/** What a scene's canvas shows: a picture, and on it the boxes as SVG. Importing it does nothing. */

import { el, setAttribute } from "../shared/dom.js";
import { around, clamp } from "./geometry.js";

/**
 * @typedef {import("./geometry.js").Point} Point
 * @typedef {import("./geometry.js").Rect} Rect
 * @typedef {import("./model.js").Scene} Scene
 * @typedef {Rect & { lasso?: Point[] }} Outline
 */

const SVG = "http://www.w3.org/2000/svg";
const HANDLES = ["n", "e", "s", "w", "nw", "ne", "se", "sw"];
/** Pixels: of a handle, and of a letter of a label. */
const HANDLE = 9;
const LETTER = 7;

/**
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...Element} children
 * @returns {SVGElement}
 */
function svg(tag, attributes = {}, ...children) {
  const element = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  set(element, attributes);
  element.append(...children);
  return element;
}

/**
 * @param {Element} element
 * @param {Record<string, any>} attributes
 */
function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
}

export class Stage {
  /** Width over height of the picture. */
  aspect = 1;
  /** Of the sheet, in pixels of the page at zoom 1. */
  size = { w: 1, h: 1 };
  /** What is being drawn. @type {Outline | null} */
  draft = null;
  /** Lines that edges have snapped to. @type {{ x?: number, y?: number }} */
  guides = {};
  #observer = new ResizeObserver(() => this.fit());

  /**
   * @param {Scene} scene
   * @param {(number: number) => string} problem what is wrong with a box; empty for nothing
   * @param {string} describedBy id of the text that tells how to use it
   */
  constructor(scene, problem, describedBy) {
    this.scene = scene;
    this.problem = problem;
    this.under = el("img", { class: "bl-scene-under", alt: "", draggable: "false", hidden: true });
    const about = { role: "group", "aria-label": "Canvas of the scene", "aria-describedby": describedBy };
    this.svg = svg("svg", { class: "bl-scene-svg", tabindex: 0, ...about });
    this.sheet = el("div", { class: "bl-scene-sheet" }, this.under, this.svg);
    this.element = el("div", { class: "bl-scene-stage" }, this.sheet);
    this.#observer.observe(this.element);
    scene.watch(() => this.render());
  }

  dispose() {
    this.#observer.disconnect();
  }

  /** The sheet becomes as large as its aspect lets it. */
  fit() {
    const { clientWidth, clientHeight } = this.element;
    if (!clientWidth || !clientHeight) return;
    const w = Math.max(1, Math.min(clientWidth, clientHeight * this.aspect));
    this.size = { w, h: w / this.aspect };
    Object.assign(this.sheet.style, { width: `${this.size.w}px`, height: `${this.size.h}px` });
    this.render();
  }

  /** Draws all that is there. Boxes keep their elements, and so the focus. */
  render() {
    setAttribute(this.svg, "viewBox", `0 0 ${this.size.w} ${this.size.h}`);
    for (const old of this.svg.querySelectorAll(":scope > :not([role=button])")) old.remove();
    const known = /** @type {SVGElement[]} */ ([...this.svg.children]);
    for (const gone of known.slice(this.scene.boxes.length)) gone.remove();
    for (const number of this.scene.boxes.keys()) {
      const group = known[number] ?? this.svg.appendChild(svg("g", { role: "button" }, svg("path"), svg("text")));
      this.#show(group, number);
    }
    this.svg.append(...this.#handles(), ...this.#lines());
  }

  /**
   * @param {Element} element
   * @returns {number} of the box that it is a part of, -1 for none
   */
  numberOf(element) {
    return Number(element.closest("[data-box]")?.getAttribute("data-box") ?? -1);
  }

  /** @param {number} number of a box; the canvas itself for another */
  focus(number) {
    const box = /** @type {SVGElement | null} */ (this.svg.querySelector(`[role=button][data-box="${number}"]`));
    (box ?? this.svg).focus({ preventScroll: true });
  }

  /**
   * @param {SVGElement} group
   * @param {number} number
   */
  #show(group, number) {
    const one = this.scene.boxes[number];
    const [path, label] = group.children;
    const problem = this.problem(number);
    const name = one.concept || one.prompt || "nobody yet";
    const [x, y, w, h] = [one.x, one.y, one.w, one.h].map((share) => `${Math.round(share * 100)}%`);
    set(group, {
      "data-box": number,
      tabindex: 0,
      "aria-pressed": String(number === this.scene.selected),
      "aria-label": `Box ${number + 1}: ${name}, at ${x}, ${y}, ${w} wide, ${h} high. ${problem}`,
      "data-wrong": Boolean(problem),
    });
    group.style.setProperty("--box", colour(number));
    setAttribute(path, "d", this.#outline(one));
    set(label, { x: clamp(one.x, 0, 1) * this.size.w + 6, y: clamp(one.y, 0, 1) * this.size.h + 16 });
    label.textContent = shortened(`${number + 1} ${name}`, (one.w * this.size.w - 10) / LETTER);
  }

  /** @param {Outline} one */
  #outline({ x, y, w, h, lasso }) {
    const corners = lasso ?? [
      [x, y],
      [x + w, y],
      [x + w, y + h],
      [x, y + h],
    ];
    const placed = corners.map(([px, py]) => `${(px * this.size.w).toFixed(1)} ${(py * this.size.h).toFixed(1)}`);
    return `M${placed.join("L")}Z`;
  }

  #handles() {
    const one = this.scene.current;
    if (!one || this.draft) return [];
    return HANDLES.map((edges) => {
      const x = (one.x + one.w * share(edges, "w", "e")) * this.size.w - HANDLE / 2;
      const y = (one.y + one.h * share(edges, "n", "s")) * this.size.h - HANDLE / 2;
      const handle = svg("rect", { class: "bl-scene-handle", "data-edges": edges, "data-box": this.scene.selected });
      const place = { x: clamp(x, 0, this.size.w - HANDLE), y: clamp(y, 0, this.size.h - HANDLE) };
      set(handle, { ...place, width: HANDLE, height: HANDLE, rx: 2 });
      handle.style.cursor = `${edges}-resize`;
      return handle;
    });
  }

  #lines() {
    const { x, y } = this.guides;
    const { w, h } = this.size;
    const drawn = [];
    if (x !== undefined) drawn.push(svg("path", { class: "bl-scene-guide", d: `M${x * w} 0V${h}` }));
    if (y !== undefined) drawn.push(svg("path", { class: "bl-scene-guide", d: `M0 ${y * h}H${w}` }));
    if (this.draft) drawn.push(svg("path", { class: "bl-scene-draft", d: this.#outline(this.draft) }));
    return drawn;
  }
}

/**
 * @param {Point[]} points
 * @returns {Outline}
 */
export function freehand(points) {
  return { ...around(points), lasso: points };
}

/**
 * @param {string} edges
 * @param {string} first
 * @param {string} last
 */
function share(edges, first, last) {
  if (edges.includes(first)) return 0;
  return edges.includes(last) ? 1 : 0.5;
}

/**
 * The colour of a box, its hue that of the layout pictures: steps of the golden angle.
 *
 * @param {number} number
 */
function colour(number) {
  const hue = ((0.6 + number * 0.618034) % 1) * 360;
  return `hsl(${hue.toFixed(0)} 75% ${Math.floor(number / 5) % 2 ? 45 : 60}%)`;
}

/**
 * @param {string} text
 * @param {number} most letters
 */
function shortened(text, most) {
  return text.length > most ? `${text.slice(0, Math.max(1, Math.floor(most) - 1))}…` : text;
}
