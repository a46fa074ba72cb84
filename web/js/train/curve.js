/** The loss over the steps: what each stretch gave, and the smoothed line. Importing it does nothing. */

import { setAttribute } from "../shared/dom.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [300, 80];

/** @typedef {[number, number][]} Points (step, loss) */

/**
 * @param {Points} points
 * @param {number} steps of the whole run
 * @returns {SVGElement}
 */
export function curve(points, steps) {
  const smooth = smoothed(points);
  const scale = scaleOf(points, smooth, steps);
  const last = smooth.at(-1)?.[1] ?? 0;
  const label = `Loss over ${points.at(-1)?.[0] ?? 0} of ${steps} steps, now about ${last.toFixed(4)}`;
  const drawn = make("svg", { class: "bl-curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  setAttribute(drawn, "preserveAspectRatio", "none");
  drawn.append(line(points, scale, "bl-raw"), line(smooth, scale, "bl-smooth"));
  return drawn;
}

/**
 * An exponential mean, corrected for its start.
 *
 * @param {Points} points
 * @returns {Points}
 */
export function smoothed(points) {
  const keep = points.length > 40 ? 0.93 : 0.8;
  let [sum, weight] = [0, 0];
  return points.map(([step, loss]) => {
    sum = keep * sum + (1 - keep) * loss;
    weight = keep * weight + (1 - keep);
    return [step, sum / weight];
  });
}

/**
 * @param {Points} points
 * @param {Points} smooth
 * @param {number} steps
 */
function scaleOf(points, smooth, steps) {
  const sorted = points.map(([, loss]) => loss).sort((a, b) => a - b);
  // Single spikes run out of the picture, the line does not.
  const most = Math.max(sorted[Math.floor(0.98 * (sorted.length - 1))] ?? 1, ...smooth.map(([, loss]) => loss));
  const least = Math.min(sorted[0] ?? 0, ...smooth.map(([, loss]) => loss));
  const span = most - least || 1;
  return (/** @type {[number, number]} */ [step, loss]) => {
    const height = HEIGHT - 4 - ((Math.min(loss, most) - least) / span) * (HEIGHT - 8);
    return `${((step / Math.max(steps, 1)) * WIDTH).toFixed(1)},${height.toFixed(1)}`;
  };
}

/**
 * @param {Points} points
 * @param {(point: [number, number]) => string} scale
 * @param {string} kind
 */
function line(points, scale, kind) {
  return make("polyline", { class: kind, points: points.map(scale).join(" "), "vector-effect": "non-scaling-stroke" });
}

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @returns {SVGElement}
 */
function make(tag, attributes) {
  const element = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  return element;
}
