/**
 * The host's two modules, from one place. The path is relative, so that it holds behind a proxy too.
 *
 * @typedef {NonNullable<ReturnType<typeof app.graph.getNodeById>>} LGraphNode a node of the graph
 */

export { api } from "../../../../scripts/api.js";

import { app } from "../../../../scripts/app.js";

export { app };
