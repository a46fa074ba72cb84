/** Editors for stock widgets, to be laid out freely: the widget keeps the value. Importing it does nothing. */

import { after, el, fill, isLinked, setValue } from "./dom.js";

/** @typedef {import("./host.js").LGraphNode} LGraphNode */

/** @typedef {{ row: HTMLElement, refresh: () => void }} Field a labelled editor; refresh shows the widget's value */

/**
 * A labelled editor of a stock widget.
 *
 * @param {LGraphNode} node
 * @param {any} widget
 * @returns {Field}
 */
export function field(node, widget) {
  const editor = editorOf(node, widget);
  const name = String(widget.label ?? widget.name).replaceAll("_", " ");
  const row = el("label", { class: "bl-field", title: widget.tooltip ?? false }, el("span", {}, name), editor.element);
  const refresh = () => {
    editor.show(widget.value);
    editor.element.disabled = isLinked(node, widget.name);
  };
  after(widget, "callback", refresh);
  refresh();
  return { row, refresh };
}

/**
 * @typedef {HTMLInputElement | HTMLSelectElement} Input
 * @typedef {{ element: Input, show: (value: any) => void }} Editor
 */

/**
 * @param {LGraphNode} node
 * @param {any} widget
 * @returns {Editor}
 */
function editorOf(node, widget) {
  const give = (/** @type {any} */ value) => setValue(node, widget, value);
  const kind = typeof widget.value;
  if (optionsOf(widget).length > 0) return choice(widget, give);
  if (kind === "boolean") return tick(give);
  return kind === "number" ? number(widget, give) : text(give);
}

/**
 * @param {any} widget
 * @returns {string[]}
 */
function optionsOf(widget) {
  const values = widget.options?.values;
  const found = typeof values === "function" ? values(widget) : values;
  return Array.isArray(found) ? found.map(String) : [];
}

/**
 * @param {any} widget
 * @param {(value: string) => void} give
 */
function choice(widget, give) {
  const element = el("select", { on: { change: () => give(element.value) } });
  /** @param {any} value */
  const show = (value) => {
    const known = [...new Set([...optionsOf(widget), String(value)])];
    fill(
      element,
      known.map((one) => el("option", { value: one }, one)),
    );
    element.value = String(value);
  };
  return { element, show };
}

/** @param {(value: boolean) => void} give */
function tick(give) {
  const element = el("input", { type: "checkbox", on: { change: () => give(element.checked) } });
  /** @param {any} value */
  const show = (value) => {
    element.checked = Boolean(value);
  };
  return { element, show };
}

/** @param {(value: string) => void} give */
function text(give) {
  const element = el("input", { type: "text", spellcheck: "false", on: { input: () => give(element.value) } });
  /** @param {any} value */
  const show = (value) => {
    if (element.value !== String(value ?? "")) element.value = String(value ?? "");
  };
  return { element, show };
}

/**
 * @param {any} widget
 * @param {(value: number) => void} give
 */
function number(widget, give) {
  const { min = -Infinity, max = Infinity, step2, step } = widget.options ?? {};
  const stride = step2 || (step || 10) / 10;
  const limits = { min: Number.isFinite(min) ? min : false, max: Number.isFinite(max) ? max : false, step: stride };
  const element = el("input", { type: "number", ...limits, on: { change: take } });
  /** @param {any} value */
  const show = (value) => {
    const number = Number(value);
    // A seed has more digits than those that a fraction is rounded to.
    element.value = String(Number.isInteger(number) ? number : Number(number.toPrecision(12)));
  };
  function take() {
    const given = element.valueAsNumber;
    if (Number.isFinite(given)) give(Math.min(max, Math.max(min, whole(given))));
    show(widget.value);
  }
  const isWhole = widget.options?.precision === 0 || Number.isInteger(stride);
  const whole = (/** @type {number} */ value) => (isWhole ? Math.round(value) : value);
  return { element, show };
}
