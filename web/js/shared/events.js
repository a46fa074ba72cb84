/** Messages of our server, and answers of its routes. Importing it does nothing. */

import { api } from "./host.js";

/**
 * Listens to an event that the server sends, such as "blocklora.run".
 *
 * @param {string} name
 * @param {(detail: any) => void} listener
 * @returns {() => void} ends it
 */
export function listen(name, listener) {
  const heard = (/** @type {Event} */ event) => listener(/** @type {CustomEvent} */ (event).detail);
  api.addEventListener(/** @type {any} */ (name), heard);
  return () => api.removeEventListener(/** @type {any} */ (name), heard);
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
