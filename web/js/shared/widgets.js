/** Stock widgets that are hidden, watched and given values, and methods of the host's that we come after. */

import { app } from "./host.js";

/** @typedef {import("./host.js").LGraphNode} LGraphNode */

/**
 * Calls `then` with the arguments each time after a method of an object, which it may not have.
 *
 * @param {any} object
 * @param {string} method
 * @param {(this: any, ...values: any[]) => void} then
 */
export function after(object, method, then) {
  const before = object[method];
  object[method] = function (/** @type {any[]} */ ...values) {
    const result = before?.apply(this, values);
    then.apply(this, values);
    return result;
  };
}

/** @type {WeakMap<object, any>} */
const sizes = new WeakMap();

/**
 * Hides a stock widget, or shows it again. Its value stays what it is, is saved and queued.
 *
 * @param {any} widget
 * @param {boolean} [hidden]
 */
export function hide(widget, hidden = true) {
  // Newer frontends also say `hidden` of a widget that a link feeds, so that only we know what we did.
  if (hidden === sizes.has(widget)) return;
  widget.hidden = hidden;
  widget.options = Object.assign(widget.options ?? {}, { hidden });
  // Older frontends lay out hidden widgets too: they get no height, and the gap after them is taken back.
  if (hidden) {
    sizes.set(widget, widget.computeSize);
    widget.computeSize = () => [0, -4];
  } else {
    widget.computeSize = sizes.get(widget);
    sizes.delete(widget);
  }
}

/**
 * Hides the stock widget of an input and gives access to its value, which stays the truth: what is saved and queued.
 * `onChange` is told of every value that comes from elsewhere: a workflow, undo, another extension.
 *
 * @param {LGraphNode} node
 * @param {string} name
 * @param {(value: string) => void} onChange
 * @returns {{ get: () => string, set: (value: string) => void }}
 */
export function standIn(node, name, onChange) {
  const widget = /** @type {any} */ (node.widgets?.find((one) => one.name === name));
  if (!widget) throw new Error(`${node.type}: expected a widget ${name}, got ${node.widgets?.map((one) => one.name)}.`);
  hide(widget);
  let setting = false;
  const tell = () => {
    if (!setting) onChange(String(widget.value ?? ""));
  };
  after(widget, "callback", tell);
  after(node, "onConfigure", tell);
  return {
    get: () => String(widget.value ?? ""),
    set(value) {
      setting = true;
      setValue(node, widget, value);
      setting = false;
    },
  };
}

/**
 * Gives a widget a value as its user would.
 *
 * @param {LGraphNode} node
 * @param {any} widget
 * @param {any} value
 */
export function setValue(node, widget, value) {
  if (widget.value === value) return;
  widget.value = value;
  widget.callback?.(value, app.canvas, node);
  node.graph?.change?.();
  node.setDirtyCanvas(true, true);
}
