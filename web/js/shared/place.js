/** Where the server knows a node, for what it says of runs. Importing it does nothing. */

import { app } from "./host.js";

/** @typedef {import("./host.js").LGraphNode} LGraphNode */

const NO_ID = "00000000-0000-0000-0000-000000000000";

/**
 * A node's id, and that of its workflow. Within a subgraph, a colon comes first.
 *
 * @param {LGraphNode} node
 * @returns {{ node: string, workflow: string }}
 */
export function placeOf(node) {
  const graph = /** @type {any} */ (node.graph);
  const root = graph?.rootGraph ?? graph ?? app.graph;
  // The host gives a workflow that was cleared none, and keeps that: all such would be one to the server.
  if (root.id === NO_ID) root.id = /** @type {any} */ (globalThis).LiteGraph.uuidv4();
  return { node: graph && graph !== root ? `:${node.id}` : String(node.id), workflow: String(root.id ?? "") };
}

/**
 * Whether what the server says of a run is of this node.
 *
 * @param {{ node: string, workflow: string }} run
 * @param {LGraphNode} node
 */
export function isRunOf(run, node) {
  const place = placeOf(node);
  const same = place.node.startsWith(":") ? run.node.endsWith(place.node) : run.node === place.node;
  return same && run.workflow === place.workflow;
}
