/** The picture beneath the boxes: the last that was made, or one that was chosen. Importing it does nothing. */

import { api } from "../shared/host.js";

/** In a scene's `picture`: whatever was made last. */
export const LAST = "last";

const FOLDER = "blocklora";

/**
 * Where a picture is shown from: `sub/name.png [output]`, as the host writes it.
 *
 * @param {string} name
 */
export function address(name) {
  const [, path, kind = "input"] = /^(.*?)(?: \[(\w+)\])?$/s.exec(name) ?? [];
  const parts = (path ?? "").split("/");
  const query = new URLSearchParams({ filename: parts.pop() ?? "", subfolder: parts.join("/"), type: kind });
  return api.apiURL(`/view?${query}`);
}

/**
 * @param {any} output of a node that ran
 * @returns {string} the first picture in it; empty when there is none
 */
export function pictureIn(output) {
  const found = output?.images?.[0];
  return found?.filename
    ? `${[found.subfolder, found.filename].filter(Boolean).join("/")} [${found.type ?? "output"}]`
    : "";
}

/** @returns {Promise<string>} the picture of the last run that saved or showed one; empty when there is none */
export async function lastPicture() {
  const answer = await api.fetchApi("/history?max_items=8");
  const runs = answer.ok ? Object.values(await answer.json()).reverse() : [];
  const shown = runs.flatMap((run) => Object.values(run.outputs ?? {}).map(pictureIn));
  return shown.find(Boolean) ?? "";
}

/**
 * Puts a file of the user's into the input folder, by the host's own route.
 *
 * @param {File} file
 * @returns {Promise<string>} what it is called there
 */
export async function upload(file) {
  const body = new FormData();
  body.append("image", file);
  body.append("subfolder", FOLDER);
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) throw new Error(`${file.name}: expected the server to take the picture, got ${answer.status}.`);
  const { name, subfolder } = await answer.json();
  return [subfolder, name].filter(Boolean).join("/");
}
