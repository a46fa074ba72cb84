/** Keys on a scene's canvas. Importing it does nothing. */

import { moved, resized } from "./geometry.js";

/**
 * @typedef {import("./model.js").Scene} Scene
 * @typedef {import("./stage.js").Stage} Stage
 */

const STEP = 0.01;
const LEAP = 0.05;

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @type {Record<string, (scene: Scene) => void>} */
const COMMANDS = {
  Delete: (scene) => scene.remove(),
  Backspace: (scene) => scene.remove(),
  Escape: (scene) => scene.select(-1),
  "]": (scene) => scene.shift(1),
  "[": (scene) => scene.shift(-1),
  // Undo and redo by keys are the host's own: it hears them before any element does, and takes the scene back with them.
  "Ctrl+d": (scene) => scene.duplicate(),
};

/** @param {Stage} stage */
export function watchKeys(stage) {
  const { scene, svg } = stage;
  svg.addEventListener("keydown", (event) => {
    const number = stage.numberOf(/** @type {Element} */ (event.target));
    if (number >= 0) scene.select(number);
    const command = COMMANDS[(event.ctrlKey || event.metaKey ? "Ctrl+" : "") + event.key];
    if (!command && !isArrow(scene, event)) return;
    event.preventDefault();
    event.stopPropagation();
    if (!command) return;
    command(scene);
    stage.focus(scene.selected);
  });
  svg.addEventListener("focusin", (event) => {
    const number = stage.numberOf(/** @type {Element} */ (event.target));
    if (number >= 0) scene.select(number);
  });
}

/**
 * An arrow moves the selected box, with Alt its right and lower edge; with Shift it goes far.
 *
 * @param {Scene} scene
 * @param {KeyboardEvent} event
 */
function isArrow(scene, event) {
  const way = ARROWS[event.key];
  const one = scene.current;
  if (!way || !one) return false;
  const [dx, dy] = way.map((part) => part * (event.shiftKey ? LEAP : STEP));
  scene.place(event.altKey ? resized(one, "se", dx, dy) : moved(one, dx, dy), `keys ${scene.selected}`);
  return true;
}
