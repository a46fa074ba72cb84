/** A number to drag, to type, or to change by keys. Importing it does nothing. */

import { el, setAttribute } from "./dom.js";

/**
 * @typedef {object} NumberOptions
 * @property {string} [name] the element's data-part
 * @property {number} min
 * @property {number} max
 * @property {number} step of the arrow keys and of a drag; ten times finer with Shift
 * @property {(text: string) => number | null} parse
 * @property {(value: number) => string} format
 * @property {(value: number) => void} onCommit called when a change is done
 *
 * @typedef {{ field: HTMLInputElement, show: (value: number, label: string) => void }} NumberField
 * show: another value, and what a screen reader says. What somebody is typing stays.
 */

const PIXELS_A_STEP = 5;
const SLACK = 3;

/**
 * @param {NumberOptions} options
 * @returns {NumberField}
 */
export function numberField({ name, min, max, step, parse, format, onCommit }) {
  const field = el("input", {
    type: "text",
    inputmode: "decimal",
    role: "spinbutton",
    class: "bl-number",
    "aria-valuemin": min,
    "aria-valuemax": max,
    "data-part": name,
    autocomplete: "off",
    spellcheck: "false",
    title: "Drag to the side, type, or use the arrow keys",
  });
  let value = 0;
  const write = () => {
    field.value = format(value);
    field.defaultValue = field.value;
    setAttribute(field, "aria-valuenow", value);
    setAttribute(field, "aria-invalid", false);
  };
  const read = (/** @type {string} */ text) => {
    const number = parse(text);
    return Number.isFinite(number) ? number : null;
  };
  const within = (/** @type {number} */ number) => Number(Math.min(max, Math.max(min, number)).toFixed(4));
  const commit = (/** @type {number} */ number) => {
    const changed = number !== value;
    value = number;
    write();
    if (changed) onCommit(value);
  };
  const typed = () => {
    const number = read(field.value);
    if (number === null) setAttribute(field, "aria-invalid", true);
    else commit(within(number));
  };
  field.addEventListener("change", typed);
  field.addEventListener("blur", write);
  field.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (event.key === "Enter") typed();
    else if (event.key === "Escape") write();
    else if (steps && !event.altKey) {
      event.preventDefault();
      commit(within((read(field.value) ?? value) + (steps * step) / (event.shiftKey ? 10 : 1)));
    }
  });
  scrub(field, step, {
    start: () => value,
    move: (number) => {
      field.value = format(within(number));
    },
    end: (number) => commit(within(number)),
    cancel: write,
  });
  return {
    field,
    show(number, label) {
      value = number;
      setAttribute(field, "aria-label", label);
      if (document.activeElement !== field || field.value === field.defaultValue) write();
    },
  };
}

/**
 * A drag to the left or right; a press without one is a click into the field.
 *
 * @param {HTMLInputElement} field
 * @param {number} step
 * @param {{ start: () => number, move: (n: number) => void, end: (n: number) => void, cancel: () => void }} to
 */
function scrub(field, step, to) {
  field.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || document.activeElement === field) return;
    event.preventDefault();
    field.setPointerCapture(event.pointerId);
    const [first, origin] = [to.start(), event.clientX];
    let dragged = false;
    const at = (/** @type {PointerEvent} */ now) => {
      const steps = Math.round((now.clientX - origin) / PIXELS_A_STEP);
      return Number((first + (steps * step) / (now.shiftKey ? 10 : 1)).toFixed(4));
    };
    const move = (/** @type {PointerEvent} */ now) => {
      dragged ||= Math.abs(now.clientX - origin) > SLACK;
      if (dragged) to.move(at(now));
    };
    const stop = (/** @type {PointerEvent} */ now) => {
      field.removeEventListener("pointermove", move);
      field.removeEventListener("pointerup", stop);
      field.removeEventListener("pointercancel", stop);
      if (now.type === "pointercancel") to.cancel();
      else if (dragged) to.end(at(now));
      else {
        field.focus();
        field.select();
      }
    };
    field.addEventListener("pointermove", move);
    field.addEventListener("pointerup", stop);
    field.addEventListener("pointercancel", stop);
  });
}
