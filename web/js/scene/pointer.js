/** Mouse, pen and finger on a scene's canvas: boxes are drawn, moved and resized. Importing it does nothing. */

import { between, clamp, LEAST, lines, moved, resized, snap, thinned } from "./geometry.js";
import { freehand } from "./stage.js";

/**
 * @typedef {import("./geometry.js").Point} Point
 * @typedef {import("./geometry.js").Rect} Rect
 * @typedef {import("./stage.js").Stage} Stage
 * @typedef {import("./stage.js").Outline} Outline
 * @typedef {object} Gesture
 * @property {(at: Point, event: PointerEvent) => void} move
 * @property {() => void} [end]
 * @property {() => void} [cancel]
 */

/** Pixels: that a pointer must go to draw; within which edges snap. */
const DRAWN = 8;
const REACH = 6;

let gestures = 0;

export class Pointer {
  /** What is drawn. @type {"box" | "lasso"} */
  tool = "box";
  /** Of the gesture that runs, or ran last. */
  #pointer = -1;
  #ended = new AbortController();

  /**
   * @param {Stage} stage
   * @param {(drawn: Outline) => void} draw
   */
  constructor(stage, draw) {
    this.stage = stage;
    this.draw = draw;
    stage.svg.addEventListener("pointerdown", (event) => this.#down(event));
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    // A second finger would choose another box under the first.
    if (this.stage.svg.hasPointerCapture(this.#pointer)) return;
    const target = /** @type {Element} */ (event.target);
    const edges = target.getAttribute("data-edges");
    const number = this.stage.numberOf(target);
    const draws = number < 0 || event.shiftKey || (this.tool === "lasso" && !edges);
    if (draws) return this.#follow(event, this.#drawing(this.#at(event), number));
    this.#select(number);
    this.#follow(event, this.#dragging(this.#at(event), edges));
  }

  /** @param {number} number */
  #select(number) {
    this.stage.scene.select(number);
    this.stage.focus(number);
  }

  /**
   * @param {PointerEvent} event
   * @returns {Point}
   */
  #at(event) {
    const { left, top, width, height } = this.stage.svg.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }

  /**
   * @param {PointerEvent} first
   * @param {Gesture} gesture
   */
  #follow(first, gesture) {
    const { svg } = this.stage;
    // One whose end was never heard, such as where the node was taken out of the page.
    this.#ended.abort();
    const ended = new AbortController();
    this.#ended = ended;
    this.#pointer = first.pointerId;
    /** @type {(kind: "pointermove" | "pointerup" | "pointercancel", then: (event: PointerEvent) => void) => void} */
    const on = (kind, then) => {
      const mine = (/** @type {PointerEvent} */ event) => {
        if (event.pointerId === first.pointerId) then(event);
      };
      svg.addEventListener(kind, mine, { signal: ended.signal });
    };
    const finish = (/** @type {(() => void) | undefined} */ then) => {
      ended.abort();
      Object.assign(this.stage, { draft: null, guides: {} });
      then?.();
      this.stage.render();
    };
    svg.setPointerCapture(first.pointerId);
    on("pointermove", (event) => gesture.move(this.#at(event), event));
    on("pointerup", () => finish(gesture.end));
    on("pointercancel", () => finish(gesture.cancel));
  }

  /**
   * @param {Point} start
   * @param {number} below number of the box that the pointer went down on, -1 for none
   * @returns {Gesture}
   */
  #drawing(start, below) {
    const isLasso = this.tool === "lasso";
    const first = isLasso ? start : this.#snapped(start);
    const points = [first];
    /** @type {Outline} */
    let drawn = between(first, first);
    return {
      move: (at, event) => {
        points.push(isLasso || event.altKey ? at : this.#snapped(at));
        drawn = isLasso ? freehand(points.map(inside)) : between(first, /** @type {Point} */ (points.at(-1)));
        this.stage.draft = drawn;
        this.stage.render();
      },
      end: () => {
        const { w, h } = this.stage.size;
        const isClick = Math.min(drawn.w * w, drawn.h * h) < DRAWN || Math.min(drawn.w, drawn.h) < LEAST;
        if (isClick) return this.#select(below);
        this.draw(drawn.lasso ? freehand(thinned(drawn.lasso)) : drawn);
      },
    };
  }

  /**
   * @param {Point} start
   * @param {string | null} edges that are dragged; null moves the box
   * @returns {Gesture}
   */
  #dragging(start, edges) {
    const { scene } = this.stage;
    const { boxes, current: before, selected, text } = scene;
    // Keys, and the host's own undo, may take the box away or choose another meanwhile.
    const isThere = () => scene.selected === selected && scene.boxes.length === boxes.length;
    gestures += 1;
    const group = `drag ${gestures}`;
    return {
      move: (at, event) => {
        if (!isThere()) return;
        const [dx, dy] = [at[0] - start[0], at[1] - start[1]];
        const change = (/** @type {number} */ x, /** @type {number} */ y) =>
          edges ? resized(before, edges, x, y) : moved(before, x, y);
        const [x, y] = event.altKey ? [0, 0] : this.#toLines(change(dx, dy), edges);
        scene.place(change(dx + x, dy + y), group, before);
      },
      cancel: () => {
        if (isThere() && scene.text !== text) scene.undo();
      },
    };
  }

  /**
   * @param {Point} at
   * @returns {Point} on the nearest lines
   */
  #snapped(at) {
    const [x, y] = this.#reach([at[0]], [at[1]], this.stage.scene.boxes);
    return [at[0] + x, at[1] + y];
  }

  /**
   * @param {Rect} rect
   * @param {string | null} edges
   * @returns {Point} how far its edges, or those that are dragged, are from lines
   */
  #toLines(rect, edges) {
    const moving = edges ?? "wens";
    const xs = [...(moving.includes("w") ? [rect.x] : []), ...(moving.includes("e") ? [rect.x + rect.w] : [])];
    const ys = [...(moving.includes("n") ? [rect.y] : []), ...(moving.includes("s") ? [rect.y + rect.h] : [])];
    const { boxes, selected } = this.stage.scene;
    return this.#reach(
      xs,
      ys,
      boxes.filter((_, number) => number !== selected),
    );
  }

  /**
   * @param {number[]} xs
   * @param {number[]} ys
   * @param {Rect[]} others
   * @returns {Point}
   */
  #reach(xs, ys, others) {
    const to = lines(others);
    const { w, h } = this.stage.size;
    const [x, y] = [snap(xs, to.x, REACH / w), snap(ys, to.y, REACH / h)];
    this.stage.guides = { x: x?.line, y: y?.line };
    return [x?.by ?? 0, y?.by ?? 0];
  }
}

/**
 * @param {Point} point
 * @returns {Point}
 */
function inside([x, y]) {
  return [clamp(x, 0, 1), clamp(y, 0, 1)];
}
