/** Pictures, captions and masks into the input folder. Importing it does nothing. */

import { Folder, put } from "./folder.js";
import { isMask, paired } from "./pairs.js";

/**
 * @typedef {import("../shared/drops.js").Dropped} Dropped
 * @typedef {ReturnType<typeof sorted>} Sorted
 */

const PICTURE = /\.(png|jpe?g|webp|avif|tiff?|bmp|gif|jfif|tga|ppm|jp2)$/i;
const TEXT = /\.(txt|caption)$/i;
const REPEATED = /^\d{1,4}_./;
const MOST_TEXT = 2 ** 16;

/**
 * What of these files belongs to a set of pictures, and what is left out: others, and captions and masks that no picture
 * would have or that might be of several.
 *
 * @param {Dropped[]} dropped
 */
export function sorted(dropped) {
  const visible = dropped.filter(({ file }) => !file.name.startsWith("."));
  const pictures = visible.filter(({ file }) => PICTURE.test(file.name) && !isMask(file.name));
  const others = visible.filter(({ file }) => isMask(file.name) || (TEXT.test(file.name) && file.size <= MOST_TEXT));
  const { pairs, lone } = paired(pictures, others);
  const taken = new Set([...lone, ...pairs.flatMap(({ picture, caption, mask }) => [picture, caption, mask])]);
  taken.delete(undefined);
  return {
    pairs,
    lone,
    files: taken.size,
    left: visible.filter((one) => !taken.has(one)).map(({ file }) => file.name),
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
 * Uploads files into a folder below the input folder. Each caption and mask goes where its picture went, which may have
 * got another name; one without its picture replaces that of the picture that is there. What is there already is not
 * sent again.
 *
 * @param {string} folder
 * @param {Sorted} sorted
 * @param {(done: number) => void} onProgress
 * @throws {Error} with the name of the file that the host refused
 */
export async function upload(folder, { pairs, lone }, onProgress) {
  /** @type {Map<string, Folder>} */
  const folders = new Map();
  const sent = new Set();
  /** @param {Dropped} one */
  const done = (one) => onProgress(sent.add(one).size);
  /** @param {Dropped} one */
  const folderOf = async (one) => {
    const path = [folder, within(one)].filter(Boolean).join("/");
    const found = folders.get(path) ?? (await Folder.open(path));
    folders.set(path, found);
    return found;
  };
  // Before the pictures: one that gets another name now is not theirs.
  for (const one of lone) {
    await (await folderOf(one)).replace(one.file);
    done(one);
  }
  for (const { picture, caption, mask } of pairs) {
    const found = await folderOf(picture);
    const name = await found.add(picture.file);
    done(picture);
    for (const one of [caption, mask]) {
      if (!one) continue;
      await found.give(name, one.file);
      done(one);
    }
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
