/** Messages of our server, and answers of its routes. Importing it does nothing. */

import { api } from "./host.js";
import { isAlive } from "./place.js";
import { after } from "./widgets.js";

/** @typedef {import("./host.js").LGraphNode} LGraphNode */

/**
 * Listens to an event that the server sends, such as "blocklora.run", or one of another target.
 *
 * @param {string} name
 * @param {(detail: any) => void} listener
 * @param {any} [target]
 * @returns {() => void} ends it
 */
export function listen(name, listener, target = api) {
  const heard = (/** @type {Event} */ event) => listener(/** @type {CustomEvent} */ (event).detail);
  target.addEventListener(name, heard);
  return () => target.removeEventListener(name, heard);
}

/**
 * Listens for a node from when it is added until it is gone, which the host does not always tell.
 *
 * @param {LGraphNode} node
 * @param {(listener: (...values: any[]) => void) => () => void} begin gives back what ends it
 * @param {(...values: any[]) => void} listener
 */
export function whileAlive(node, begin, listener) {
  let end = () => {};
  const start = () => {
    end();
    end = begin((...values) => (isAlive(node) ? listener(...values) : end()));
  };
  after(node, "onAdded", start);
  after(node, "onRemoved", () => end());
  if (isAlive(node)) start();
}

/**
 * As `listen`, for a node.
 *
 * @param {LGraphNode} node
 * @param {string} name
 * @param {(detail: any) => void} listener
 * @param {any} [target]
 */
export function listenFor(node, name, listener, target) {
  whileAlive(node, (heard) => listen(name, heard, target), listener);
}

/**
 * The JSON answer of a route of ours, such as "/blocklora/runs"; null when there is none.
 *
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<any>}
 */
export async function ask(path, init) {
  const answer = await api.fetchApi(path, init);
  return answer.ok && answer.status !== 204 ? answer.json() : null;
}

/**
 * Sends JSON to a route of ours.
 *
 * @param {string} path
 * @param {any} [body]
 */
export function send(path, body = {}) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}
