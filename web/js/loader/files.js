/** What the server knows of LoRA files: kept for all nodes of a page. Importing it does nothing. */

import { ask, send } from "../shared/events.js";
import { api } from "../shared/host.js";

/**
 * @typedef {object} LoraFile
 * @property {string} name with its folder, parted by /
 * @property {number} [folder] which loras folder; without it the server has not read the file yet
 * @property {boolean} [picture] whether a picture lies beside it
 * @property {string} [concept]
 * @property {string} [base]
 * @property {string} [words] what calls it
 * @property {number | null} [images] pictures that it was trained on
 * @property {"rows" | "grams" | "collect" | "added"} [apart] how a merge keeps it apart
 * @property {number | null} [slot]
 * @property {number | null} [slots]
 * @property {string} [problem]
 * @property {number} [changed] seconds
 * @property {number} [size] bytes
 *
 * @typedef {{ file?: string, concept?: string, problem?: string, notes?: string[] }} Told of a line
 */

/** @type {Map<string, LoraFile>} */
let known = new Map();

/** @type {Promise<void> | null} */
let reading = null;

let answered = true;

/** @type {Set<() => void>} */
const listeners = new Set();

/**
 * Calls `listener` whenever more is known; the function that comes back ends it.
 *
 * @param {() => void} listener
 */
export function onFiles(listener) {
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
  };
}

/** @returns {LoraFile[]} */
export const allFiles = () => [...known.values()];

/** @param {string} name */
export const fileOf = (name) => known.get(name);

/** Whether the server told its files when it was asked last. */
export const hasAnswered = () => answered;

/** Asks the server for its files, again and again until it has read all of them; once at a time. */
export function readFiles() {
  reading ??= readAll().finally(() => {
    reading = null;
  });
  return reading;
}

async function readAll() {
  let unread = 1;
  while (unread) {
    const answer = await ask("/blocklora/files").catch(() => null);
    answered = Boolean(answer);
    if (answer) known = new Map(answer.files.map((/** @type {LoraFile} */ file) => [file.name, file]));
    unread = answer?.unread ?? 0;
    for (const listener of listeners) listener();
  }
}

/**
 * What the server makes of a list: number of a line, from 1 -> what it tells of it. null where it does not answer.
 *
 * @param {string} text
 * @returns {Promise<Record<string, Told> | null>}
 */
export const check = (text) => send("/blocklora/list", { files: text }).catch(() => null);

/**
 * The picture beside a file, by the host's own route; null where there is none.
 *
 * @param {LoraFile | undefined} file
 */
export function pictureOf(file) {
  if (!file?.picture) return null;
  const name = file.name.split("/").map(encodeURIComponent).join("/");
  return api.apiURL(`/experiment/models/preview/loras/${file.folder}/${name}`);
}

/** @param {string} name */
export const folderOf = (name) => name.slice(0, name.lastIndexOf("/") + 1).replace(/\/$/, "");

/** @param {string} name */
export const stemOf = (name) => name.slice(name.lastIndexOf("/") + 1).replace(/\.\w+$/, "");

const APART = { rows: "rows", grams: "Grams", collect: "plain", added: "added" };

const APART_LONG = {
  rows: "Holds rows of its own, which no other slot has",
  grams: "Carries Grams, so a merge keeps it apart",
  collect: "A plain LoRA: sampled once for what it sees, then kept apart",
  added: "Of another kind than LoRA: added as chained loaders do",
};

/**
 * Marks of a file, short and at length.
 *
 * @param {LoraFile} file
 * @returns {{ text: string, title: string }[]}
 */
export function marksOf(file) {
  const marks = [];
  if (file.base) marks.push({ text: file.base, title: `Trained on ${file.base}` });
  if (file.slot != null) {
    marks.push({ text: `slot ${file.slot}`, title: `Row block ${file.slot} of ${file.slots}` });
  }
  if (file.apart && file.slot == null) marks.push({ text: APART[file.apart], title: APART_LONG[file.apart] });
  return marks;
}
