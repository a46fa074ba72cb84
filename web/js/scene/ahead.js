/** What the server says to a scene before it is queued: which names there are, and what is wrong. */

import { send } from "../shared/events.js";
import { sourceOf } from "../shared/links.js";

/**
 * @typedef {import("../shared/host.js").LGraphNode} LGraphNode
 * @typedef {object} Ahead
 * @property {string[]} names concepts that boxes may name, as far as is known
 * @property {Record<string, string>} problems number of a box, from 1 -> what is wrong with it
 * @property {string} problem what is wrong with the scene as a whole
 */

/** What stands for all that feeds nodes from outside of their subgraph: a node of which nothing is known. */
const OUTSIDE = "outside";

/** Of a node: it runs. Muted and bypassed ones do not. */
const ALWAYS = 0;

/**
 * @param {LGraphNode} node
 * @returns {Promise<Ahead | null>} null where the server does not answer
 */
export async function lookAhead(node) {
  const graph = {};
  collect(node, graph);
  const told = await send("/blocklora/scene", { graph, node: String(node.id) }).catch(() => null);
  return told && { names: [], problems: {}, problem: "", ...told };
}

/**
 * The nodes before `node` as the host queues them: our own with what stands in them, of others the links alone.
 *
 * @param {any} node
 * @param {Record<string, any>} graph
 */
function collect(node, graph) {
  const id = String(node.id);
  if (graph[id]) return;
  const ours = String(node.type).startsWith("BlockLoRA") && node.mode === ALWAYS;
  /** @type {Record<string, any>} */
  const inputs = {};
  graph[id] = { class_type: ours ? node.type : "", inputs };
  for (const widget of ours ? (node.widgets ?? []) : []) inputs[widget.name] = widget.value;
  for (const [slot, input] of (node.inputs ?? []).entries()) {
    if (!node.isInputConnected(slot)) continue;
    const before = sourceOf(node, slot);
    inputs[input.name] = before ? [String(before.node.id), before.slot] : [OUTSIDE, 0];
    if (before) collect(before.node, graph);
    else graph[OUTSIDE] = { class_type: "", inputs: {} };
  }
}
