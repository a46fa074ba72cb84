/** The fields of Train in the order in which people need them. Importing it does nothing. */

import { el, fill, hide, isLinked, setValue } from "../shared/dom.js";
import { field } from "../shared/fields.js";

/**
 * @typedef {import("../shared/host.js").LGraphNode} LGraphNode
 * @typedef {import("../shared/fields.js").Field} Field
 */

const FIRST = ["concept", "class_word"];
const PRESET = "preset";

/** Sections and their inputs; what stands nowhere goes into the last. */
const SECTIONS = [
  { title: "What learns", names: ["slot", "rank", "layers", "layer_pattern", "adapter", "token", "erasure", "niche"] },
  {
    title: "How long, how fast",
    names: ["steps", "batch_size", "learning_rate", "embedding_learning_rate", "embedding_share", "seed"],
  },
  { title: "Pictures, memory, keeping", names: [] },
];

/**
 * Fields, preset and sections of a Train node, whose stock widgets are hidden but for those that a link feeds.
 *
 * @param {LGraphNode} node
 * @param {HTMLElement} pictures says where the pictures come from
 * @param {HTMLElement} start
 * @returns {{ element: HTMLElement, refresh: () => void }}
 */
export function trainForm(node, pictures, start) {
  const fields = new Map((node.widgets ?? []).map((widget) => [widget.name, field(node, widget)]));
  const presets = presetRow(node);
  const rest = [...fields.keys()].filter((name) => ![...FIRST, PRESET].includes(name));
  const element = el(
    "div",
    { class: "bl-column bl-form" },
    el("div", { class: "bl-column" }, rows(fields, FIRST), pictures),
    el("div", { class: "bl-row bl-spread" }, presets.element, start),
    sections(fields, rest),
  );
  const refresh = () => {
    for (const widget of node.widgets ?? []) if (fields.has(widget.name)) hide(widget, !isLinked(node, widget.name));
    for (const one of fields.values()) one.refresh();
    presets.refresh();
    govern(node, fields);
  };
  for (const one of node.widgets ?? []) if (one.name === PRESET) one.callback = chained(one.callback, refresh);
  refresh();
  return { element, refresh };
}

/**
 * @param {any} before
 * @param {() => void} then
 */
function chained(before, then) {
  return function (/** @type {any[]} */ ...values) {
    // @ts-expect-error this is the widget
    before?.apply(this, values);
    then();
  };
}

/**
 * @param {Map<string, Field>} fields
 * @param {string[]} names
 */
function rows(fields, names) {
  return names.map((name) => fields.get(name)?.row);
}

/**
 * @param {Map<string, Field>} fields
 * @param {string[]} all
 */
function sections(fields, all) {
  const placed = SECTIONS.flatMap(({ names }) => names);
  const others = all.filter((name) => !placed.includes(name));
  return SECTIONS.map(({ title, names }) =>
    el(
      "details",
      {},
      el("summary", {}, title),
      el("div", { class: "bl-fields" }, rows(fields, names.length ? names : others)),
    ),
  );
}

/** @param {LGraphNode} node */
function presetWidget(node) {
  return /** @type {any} */ (node.widgets?.find((widget) => widget.name === PRESET));
}

/**
 * What each preset sets, as Python has it.
 *
 * @param {LGraphNode} node
 * @returns {Record<string, Record<string, any>>}
 */
function presetsOf(node) {
  const definition = /** @type {any} */ (node.constructor).nodeData?.input?.optional?.[PRESET];
  return definition?.[1]?.presets ?? {};
}

/** @param {LGraphNode} node */
function presetRow(node) {
  const element = el("div", { class: "bl-segments", role: "radiogroup", "aria-label": "Preset" });
  const refresh = () => {
    const chosen = String(presetWidget(node)?.value);
    fill(
      element,
      Object.entries(presetsOf(node)).map(([name, values]) => segment(node, name, values, name === chosen)),
    );
  };
  return { element, refresh };
}

/**
 * @param {LGraphNode} node
 * @param {string} name
 * @param {Record<string, any>} values
 * @param {boolean} chosen
 */
function segment(node, name, values, chosen) {
  const title = values.steps ? `${values.steps} steps` : "What is set in the sections";
  const choose = () => {
    setValue(node, presetWidget(node), name);
    /** @type {HTMLElement | null} */ (document.querySelector(`[data-preset="${node.id} ${name}"]`))?.focus();
  };
  const marks = { role: "radio", "aria-checked": String(chosen), "data-preset": `${node.id} ${name}`, title };
  return el("button", { type: "button", ...marks, on: { click: choose } }, name);
}

/**
 * Fields that the preset decides show its values, and cannot be edited.
 *
 * @param {LGraphNode} node
 * @param {Map<string, Field>} fields
 */
function govern(node, fields) {
  const values = presetsOf(node)[String(presetWidget(node)?.value)] ?? {};
  for (const [name, one] of fields) {
    const editor = /** @type {HTMLInputElement} */ (one.row.querySelector("input, select"));
    const given = name in values;
    one.row.toggleAttribute("data-preset", given);
    if (given) {
      editor.value = String(values[name]);
      editor.disabled = true;
    }
  }
}
