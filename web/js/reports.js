/**
 * What a node says of its last run, on the node: the report, names to copy, warnings. Driven by the `ui` output of nodes
 * of this pack; kept in the node's properties, and so with the workflow.
 */

import { addPanel, after, el, fill, isNodes2 } from "./shared/dom.js";
import { listen, listenFor } from "./shared/events.js";
import { app } from "./shared/host.js";
import { isRunOf, placeOf } from "./shared/place.js";

/**
 * @typedef {{ text: string, names: string[], warnings: string[] }} Report
 * @typedef {import("./shared/host.js").LGraphNode} LGraphNode
 */

const OURS = "BlockLoRA";
const LIVE = ["BlockLoRATrainCast"];
const PROPERTY = "blocklora_report";
const PANEL = "blocklora_report";
const MOST_LETTERS = 20000;
const MOST_NAMES = 200;
const COPIED_FOR = 1200;
/** Of a report, until the node is made higher. */
const HEIGHT = 220;

// A page without such a node hears of runs, too, and the host takes a message that nobody listens to for an error.
listen("blocklora.report", () => {});

app.registerExtension({
  name: "blocklora.reports",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith(OURS)) return;
    // Nodes 2.0 of frontend 1.32 draws no widget that comes after one of the host's was changed: the panel waits, empty.
    after(nodeType.prototype, "onNodeCreated", function () {
      if (isNodes2()) panelOf(this);
    });
    if (LIVE.includes(nodeData.name)) after(nodeType.prototype, "onNodeCreated", listenToRun);
    after(nodeType.prototype, "onExecuted", function (/** @type {any} */ output) {
      const report = fromOutput(output);
      if (!report) return;
      this.properties[PROPERTY] = report;
      show(this, report);
    });
    after(nodeType.prototype, "onConfigure", function () {
      if (isReport(this.properties?.[PROPERTY])) show(this, this.properties[PROPERTY]);
    });
  },
});

/**
 * Of a node that says how it goes on while it runs: shown, but not kept with the workflow.
 *
 * @this {LGraphNode}
 */
function listenToRun() {
  listenFor(this, "blocklora.report", (run) => {
    if (isRunOf(run, this)) show(this, { text: String(run.text), names: [], warnings: [] });
  });
  // The workflow has an id before it is queued.
  after(this, "onAdded", () => setTimeout(() => placeOf(this)));
}

/**
 * The report in what the server says of a run; null where there is none.
 *
 * @param {any} output
 * @returns {Report | null}
 */
function fromOutput(output) {
  const text = lines(output?.text).join("\n").trim().slice(0, MOST_LETTERS);
  const names = [...new Set(lines(output?.blocklora_names))];
  return text ? { text, names, warnings: lines(output?.blocklora_warnings) } : null;
}

/**
 * @param {any} value
 * @returns {string[]}
 */
function lines(value) {
  return [value ?? []].flat().filter((one) => typeof one === "string" && one);
}

/**
 * A workflow may hold anything.
 *
 * @param {any} value
 */
function isReport(value) {
  return typeof value?.text === "string" && Array.isArray(value.names) && Array.isArray(value.warnings);
}

/**
 * @param {LGraphNode & { blockloraReport?: HTMLElement }} node
 * @returns {HTMLElement}
 */
function panelOf(node) {
  if (!node.blockloraReport || !node.widgets?.some((widget) => widget.name === PANEL)) {
    node.blockloraReport = el("div", { class: "bl-column bl-report" });
    addPanel(node, PANEL, node.blockloraReport, { last: true, most: HEIGHT });
  }
  return node.blockloraReport;
}

/**
 * @param {LGraphNode} node
 * @param {Report} report
 */
function show(node, report) {
  const names = lines(report.names).slice(0, MOST_NAMES).map(chip);
  fill(panelOf(node), names.length > 0 && el("div", { class: "bl-row bl-names" }, names), body(report));
}

/** @param {Report} report */
function body(report) {
  const warned = new Set(lines(report.warnings).flatMap((text) => text.split("\n")));
  const rows = report.text
    .slice(0, MOST_LETTERS)
    .split("\n")
    .map((line) => row(line, warned.has(line)));
  return el("div", { class: "bl-text", role: "log", tabindex: 0, "aria-label": "Report" }, rows);
}

/**
 * @param {string} text
 * @param {boolean} warning
 */
function row(text, warning) {
  return el("div", { class: warning ? "bl-warning" : "bl-line" }, warning && el("b", {}, "\u26a0 "), text || "\u00a0");
}

/** @param {string} name */
function chip(name) {
  const button = el("button", { class: "bl-chip", type: "button", title: `Copy ${name}`, on: { click: copy } }, name);
  async function copy() {
    // Browsers give pages of other machines without https no clipboard.
    if (navigator.clipboard) await navigator.clipboard.writeText(name);
    else {
      getSelection()?.selectAllChildren(button);
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => {
      button.textContent = name;
    }, COPIED_FOR);
  }
  return button;
}
