/** Pictures and captions into the input folder, by the host's own route. Importing it does nothing. */

import { api } from "../shared/host.js";

/** @typedef {import("../shared/drops.js").Dropped} Dropped */

const PICTURE = /\.(png|jpe?g|webp|avif|tiff?|bmp|gif|jfif|tga|ppm|jp2)$/i;
const TEXT = /\.(txt|caption)$/i;
const REPEATED = /^\d{1,4}_./;
const MOST_TEXT = 2 ** 16;

/**
 * What of these files belongs to a set of pictures.
 *
 * @param {Dropped[]} dropped
 */
export function sorted(dropped) {
  const visible = dropped.filter(({ file }) => !file.name.startsWith("."));
  const taken = visible.filter(
    ({ file }) => PICTURE.test(file.name) || (TEXT.test(file.name) && file.size <= MOST_TEXT),
  );
  return {
    taken,
    pictures: taken.filter(({ file }) => PICTURE.test(file.name)).length,
    left: visible.filter((one) => !taken.includes(one)).map(({ file }) => file.name),
  };
}

/**
 * A name for a folder: no path, nothing that a system or the host reads as something else.
 *
 * @param {string} text
 */
export function folderName(text) {
  const name = text
    .normalize("NFC")
    .replace(/[^\p{L}\p{N} ._-]/gu, "_")
    .replace(/^[ .]+|[ .]+$/g, "");
  return name.slice(0, 80);
}

/**
 * Where a dropped file goes below the folder: kohya's folders, such as `10_ohwx man`, stay what they are.
 *
 * @param {Dropped} dropped
 */
const within = ({ folder }) =>
  folder
    .split("/")
    .filter((part) => REPEATED.test(part))
    .slice(-1)
    .map(folderName)
    .join("/");

/**
 * Uploads files into a folder below the input folder. Files of one name and content are uploaded once.
 *
 * @param {string} folder
 * @param {Dropped[]} dropped
 * @param {(done: number) => void} onProgress
 * @throws {Error} with the name of the file that the host refused
 */
export async function upload(folder, dropped, onProgress) {
  let done = 0;
  for (const one of dropped) {
    const inner = within(one);
    await put(inner ? `${folder}/${inner}` : folder, one.file, one.file.name, TEXT.test(one.file.name));
    onProgress(++done);
  }
}

/**
 * Writes a caption file.
 *
 * @param {string} folder
 * @param {string} name
 * @param {string} text
 */
export const writeCaption = (folder, name, text) => put(folder, new Blob([text], { type: "text/plain" }), name, true);

/**
 * @param {string} folder
 * @param {Blob} content
 * @param {string} name
 * @param {boolean} overwrite
 */
async function put(folder, content, name, overwrite) {
  const body = new FormData();
  body.append("image", content, name);
  body.append("type", "input");
  body.append("subfolder", folder);
  if (overwrite) body.append("overwrite", "true");
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) throw new Error(`${name}: the server refused it (${answer.status} ${answer.statusText})`);
}
