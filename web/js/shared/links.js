/** Who is linked to whom, by the methods that every frontend has: the newest deprecates the fields behind them. */

/** @typedef {import("./host.js").LGraphNode} LGraphNode */

/**
 * Whether a link feeds an input, which may also be a widget's.
 *
 * @param {LGraphNode} node
 * @param {string} name
 */
export function isLinked(node, name) {
  const slot = node.findInputSlot(name);
  return slot >= 0 && node.isInputConnected(slot);
}

/**
 * The node that feeds an input, and its output. By the way of plain nodes: a subgraph's own looks for its inner outputs.
 *
 * @param {LGraphNode} node
 * @param {number} slot
 * @returns {{ node: any, slot: number } | null}
 */
export function sourceOf(node, slot) {
  const plain = /** @type {any} */ (globalThis).LiteGraph.LGraphNode.prototype;
  const link = node.isInputConnected(slot) ? plain.getInputLink.call(node, slot) : null;
  const source = link && node.graph?.getNodeById(link.origin_id);
  return link && source ? { node: source, slot: link.origin_slot } : null;
}

/**
 * The number that a link brings to an input, where it is that of a widget: of a node that has nothing else to say.
 *
 * @param {LGraphNode} node
 * @param {string} name
 * @returns {number | undefined}
 */
export function numberBehind(node, name) {
  const source = sourceOf(node, node.findInputSlot(name))?.node;
  if (!source || source.subgraph || source.outputs.length !== 1) return undefined;
  const slots = [...(source.inputs ?? []).keys()];
  if (slots.some((slot) => source.isInputConnected(slot))) return undefined;
  const numbers = (source.widgets ?? []).filter((/** @type {any} */ { value }) => typeof value === "number");
  return numbers.length === 1 ? numbers[0].value : undefined;
}

/**
 * The nodes that a node's outputs feed.
 *
 * @param {LGraphNode} node
 * @returns {any[]}
 */
export function targetsOf(node) {
  return node.outputs.flatMap((_, slot) => node.getOutputNodes(slot) ?? []);
}
