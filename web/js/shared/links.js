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
 * The node that feeds an input, and its output. Not by getInputNode: a subgraph looks for its inner outputs there.
 *
 * @param {LGraphNode} node
 * @param {number} slot
 * @returns {{ node: any, slot: number } | null}
 */
export function sourceOf(node, slot) {
  const link = node.isInputConnected(slot) ? node.getInputLink(slot) : null;
  const source = link && node.graph?.getNodeById(link.origin_id);
  return link && source ? { node: source, slot: link.origin_slot } : null;
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
