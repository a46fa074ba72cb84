/** Where a node stands, and where the server knows it, for what it says of runs. Importing it does nothing. */

/** @typedef {import("./host.js").LGraphNode} LGraphNode */

const NO_ID = "00000000-0000-0000-0000-000000000000";

/** @type {Map<string, string>} workflow and subgraph -> the way by which it was opened last */
const opened = new Map();

/** @param {any} graph */
const rootOf = (graph) => graph.rootGraph ?? graph;

/**
 * Whether a node stands in a workflow. The host tells no copy that it makes for the clipboard, and nothing within the
 * subgraphs of a workflow that was closed, that it is gone.
 *
 * @param {LGraphNode} node
 */
export function isAlive(node) {
  const graph = /** @type {any} */ (node.graph);
  if (graph?.getNodeById(node.id) !== node) return false;
  const root = rootOf(graph);
  return graph === root || root.subgraphs?.get(graph.id) === graph;
}

/** @param {any} graph */
function workflowOf(graph) {
  const root = rootOf(graph);
  // The host gives a workflow that was cleared none, and keeps that: all such would be one to the server.
  if (root.id === NO_ID) root.id = /** @type {any} */ (globalThis).LiteGraph.uuidv4();
  return String(root.id ?? "");
}

/**
 * The ways to a graph from `from`, as the server writes them: the ids of the nodes that are opened one after the other.
 *
 * @param {any} graph
 * @param {any} from
 * @param {string} way to `from`
 * @returns {string[]}
 */
function waysTo(graph, from = rootOf(graph), way = "") {
  if (graph === from) return [way];
  const inner = from.nodes.filter((/** @type {any} */ node) => node.subgraph);
  return inner.flatMap((/** @type {any} */ node) => waysTo(graph, node.subgraph, `${way}${node.id}:`));
}

/** @param {any} graph */
const keyOf = (graph) => `${workflowOf(graph)} ${graph.id}`;

/**
 * The way to a graph; null where it stands in the workflow more than once, and nobody knows which one is meant.
 *
 * @param {any} graph
 * @returns {string | null}
 */
function wayTo(graph) {
  const ways = waysTo(graph);
  const last = opened.get(keyOf(graph));
  return (ways.length > 1 ? ways.find((way) => way === last) : ways[0]) ?? null;
}

/**
 * Takes what the host's event "subgraph-opened" says: a subgraph does not know from which of its nodes it was opened.
 *
 * @param {{ subgraph: any, fromNode?: any }} told
 */
export function rememberOpened({ subgraph, fromNode }) {
  const outer = fromNode?.graph ? wayTo(fromNode.graph) : null;
  if (outer === null) opened.delete(keyOf(subgraph));
  else opened.set(keyOf(subgraph), `${outer}${fromNode.id}:`);
}

/**
 * A node's id as the server has it, with those of the subgraphs around it, and that of its workflow. The first is empty
 * where the subgraph stands there more than once, and nobody knows which one is meant.
 *
 * @param {LGraphNode} node
 * @returns {{ node: string, workflow: string }}
 */
export function placeOf(node) {
  if (!node.graph) return { node: "", workflow: "" };
  const way = wayTo(node.graph);
  return { node: way === null ? "" : `${way}${node.id}`, workflow: workflowOf(node.graph) };
}

/**
 * Whether what the server says of a run is of this node.
 *
 * @param {{ node: string, workflow: string }} run
 * @param {LGraphNode} node
 */
export function isRunOf(run, node) {
  const place = placeOf(node);
  return run.node === place.node && run.workflow === place.workflow;
}
