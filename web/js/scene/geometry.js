/** Rectangles on a canvas whose sides are 1. Importing it does nothing. */

/**
 * @typedef {{ x: number, y: number, w: number, h: number }} Rect
 * @typedef {[number, number]} Point
 * @typedef {object} Box
 * @property {number} x
 * @property {number} y
 * @property {number} w
 * @property {number} h
 * @property {string} concept
 * @property {string} prompt
 * @property {string} negative
 * @property {number} weight
 * @property {number} feather
 * @property {Point[]} [lasso] the corners of a freehand shape; x, y, w, h are then the box around it
 */

/** Sides of boxes are at least this, and lassos have at most so many corners. */
export const LEAST = 0.02;
export const MOST_POINTS = 400;

/**
 * @param {Point[]} points
 * @returns {Rect}
 */
export function around(points) {
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return { x, y, w: Math.max(...xs) - x, h: Math.max(...ys) - y };
}

/**
 * The rectangle between two corners, within the canvas.
 *
 * @param {Point} a
 * @param {Point} b
 * @returns {Rect}
 */
export function between(a, b) {
  return around([a, b].map(([x, y]) => /** @type {Point} */ ([clamp(x, 0, 1), clamp(y, 0, 1)])));
}

/**
 * `box` where `rect` is; a lasso is stretched into it.
 *
 * @param {Box} box
 * @param {Rect} rect
 * @returns {Box}
 */
export function within(box, rect) {
  if (!box.lasso) return { ...box, ...rect };
  const stretch = (/** @type {Point} */ [x, y]) =>
    /** @type {Point} */ ([
      rect.x + ((x - box.x) / (box.w || 1)) * rect.w,
      rect.y + ((y - box.y) / (box.h || 1)) * rect.h,
    ]);
  return { ...box, ...rect, lasso: box.lasso.map(stretch) };
}

/**
 * @param {Rect} rect
 * @param {number} dx
 * @param {number} dy
 * @returns {Rect} moved, but not out of the canvas
 */
export function moved(rect, dx, dy) {
  const inside = (/** @type {number} */ start, /** @type {number} */ length) =>
    clamp(start, Math.min(0, 1 - length), Math.max(0, 1 - length));
  return { ...rect, x: inside(rect.x + dx, rect.w), y: inside(rect.y + dy, rect.h) };
}

/**
 * @param {Rect} rect
 * @param {string} edges which move: letters of n, s, w, e
 * @param {number} dx
 * @param {number} dy
 * @returns {Rect}
 */
export function resized(rect, edges, dx, dy) {
  let [left, top, right, bottom] = [rect.x, rect.y, rect.x + rect.w, rect.y + rect.h];
  if (edges.includes("w")) left = clamp(left + dx, 0, right - LEAST);
  if (edges.includes("e")) right = clamp(right + dx, left + LEAST, 1);
  if (edges.includes("n")) top = clamp(top + dy, 0, bottom - LEAST);
  if (edges.includes("s")) bottom = clamp(bottom + dy, top + LEAST, 1);
  return { x: left, y: top, w: right - left, h: bottom - top };
}

const LINES = [0, 1 / 3, 1 / 2, 2 / 3, 1];

/**
 * Where edges may snap to: the canvas, its middle and thirds, and the edges of other boxes.
 *
 * @param {Rect[]} others
 * @returns {{ x: number[], y: number[] }}
 */
export function lines(others) {
  return {
    x: [...LINES, ...others.flatMap(({ x, w }) => [x, x + w])],
    y: [...LINES, ...others.flatMap(({ y, h }) => [y, y + h])],
  };
}

/**
 * How far to the nearest line, for whichever of `edges` is the nearest to one; null beyond `reach`.
 *
 * @param {number[]} edges
 * @param {number[]} to
 * @param {number} reach
 * @returns {{ by: number, line: number } | null}
 */
export function snap(edges, to, reach) {
  const found = edges.flatMap((edge) => to.map((line) => ({ by: line - edge, line })));
  const best = found.reduce((a, b) => (Math.abs(b.by) < Math.abs(a.by) ? b : a), { by: Infinity, line: 0 });
  return Math.abs(best.by) <= reach ? best : null;
}

/**
 * A drawn line with no more corners than it needs: every n-th.
 *
 * @param {Point[]} points
 * @returns {Point[]}
 */
export function thinned(points) {
  const every = Math.ceil(points.length / MOST_POINTS);
  return points.filter((_, number) => number % every === 0);
}

/**
 * @param {number} value
 * @param {number} least
 * @param {number} most
 */
export function clamp(value, least, most) {
  return Math.min(Math.max(value, least), most);
}
