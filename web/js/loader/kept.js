/** Lists that the user keeps, in the user's folder through the host's own userdata. Importing it does nothing. */

import { api } from "../shared/host.js";

/** @typedef {Map<string, string>} Lists name of a list -> its text */

const FILE = "/userdata/blocklora%2Flists.json";

const UNTOLD = "They are left as they are: try again.";
const DAMAGED =
  "expected a text for each name in blocklora/lists.json of ComfyUI's user folder, got something else. " +
  "The file is left as it is: repair it, or move it away to begin anew.";

/** @type {Promise<unknown>} */
let last = Promise.resolve();

/**
 * The lists that are kept. Error where they cannot be read: only a file that is not there holds none, and what is taken
 * for none would be written back.
 *
 * @returns {Promise<Lists>}
 */
export async function readLists() {
  const answer = await api.fetchApi(FILE);
  if (answer.status === 404) return new Map();
  if (!answer.ok) throw new Error(`expected the kept lists, the server answered ${answer.status}. ${UNTOLD}`);
  const kept = parsed(await answer.text());
  const isPlain = kept !== null && typeof kept === "object" && !Array.isArray(kept);
  if (!isPlain || Object.values(kept).some((text) => typeof text !== "string")) throw new Error(DAMAGED);
  return new Map(Object.entries(kept));
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/**
 * Changes what is kept, one change after the other, and gives it back. Error where it could not be read or written.
 *
 * @param {(lists: Lists) => void} change
 * @returns {Promise<Lists>}
 */
export function changeLists(change) {
  const changed = last.then(async () => {
    // Another page may have kept one meanwhile.
    const lists = await readLists();
    change(lists);
    await write(lists);
    return lists;
  });
  last = changed.catch(() => {});
  return changed;
}

/** @param {Lists} lists */
async function write(lists) {
  const body = JSON.stringify(Object.fromEntries(lists), null, 1);
  const answer = await api.fetchApi(`${FILE}?overwrite=true`, { method: "POST", body });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
}
