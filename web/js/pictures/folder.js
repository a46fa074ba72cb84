/** A folder below the input folder as files are added to it, by the host's own routes. Importing it does nothing. */

import { api } from "../shared/host.js";
import { formOf } from "./form.js";
import { isMask, maskOf, parted, pictureOf } from "./pairs.js";

/**
 * @typedef {import("./grid.js").Picture} Picture
 * @typedef {{ name: string, caption_file: string, captioned: boolean }} Other a picture that is not shown
 * @typedef {object} Told problem: why it is no folder
 * @property {Picture[]} pictures
 * @property {Other[]} others
 * @property {number} count
 * @property {string[]} skipped
 * @property {string[]} advice
 * @property {string} problem
 */

export class Folder {
  /**
   * @param {string} path
   * @param {Map<string, string>} captions name of a picture in it -> the file of its caption, there or not
   */
  constructor(path, captions) {
    this.path = path;
    this.captions = captions;
  }

  /** @param {string} path of a folder that need not be there yet */
  static async open(path) {
    const { pictures = [], others = [] } = await contents(path).catch((error) => {
      throw new Error(`${error.message}. Nothing was sent to it: try again`);
    });
    // Not only those that are shown: what it does not know of is overwritten.
    const own = [...pictures, ...others].filter(({ name }) => !name.includes("/"));
    return new Folder(path, new Map(own.map(({ name, caption_file }) => [name, caption_file])));
  }

  /**
   * Adds a picture under its own name, or a numbered one where that would share captions and masks with another. One that
   * is there already stays.
   *
   * @param {File} file
   * @returns {Promise<string>} what it is called there
   */
  async add(file) {
    const [stem, end] = parted(file.name);
    for (let number = 0; ; number++) {
      // As the host numbers them: it does so by the whole name, but a.png and a.jpg have one caption.
      const name = number ? `${stem} (${number})${end}` : file.name;
      const alike = this.#alike(name);
      if (alike.includes(name) && (await this.#holds(name, file))) return name;
      if (alike.length) continue;
      const given = await put(this.path, file, name, false);
      this.captions.set(given, this.captions.get(given) ?? `${parted(given)[0]}.txt`);
      return given;
    }
  }

  /**
   * Pictures that a caption of this one's would be of, too.
   *
   * @param {string} name
   */
  #alike(name) {
    const stem = parted(name)[0].toLowerCase();
    return [...this.captions.keys()].filter((one) => parted(one)[0].toLowerCase() === stem);
  }

  /**
   * Whether a picture in it is this one, byte for byte. What cannot be compared is another: a name more harms nothing.
   *
   * @param {string} name
   * @param {File} file
   */
  async #holds(name, file) {
    const query = new URLSearchParams({ filename: name, subfolder: this.path, type: "input" });
    const answer = await api.fetchApi(`/view?${query}`);
    if (!answer.ok) return false;
    const [its, own] = await Promise.all([answer.arrayBuffer(), file.arrayBuffer()]);
    const [a, b] = [new Uint8Array(its), new Uint8Array(own)];
    return a.length === b.length && a.every((byte, at) => byte === b[at]);
  }

  /**
   * Writes the caption or mask of a picture in place of its old one.
   *
   * @param {string} picture
   * @param {File} file
   */
  async give(picture, file) {
    const name = isMask(file.name) ? maskOf(picture) : (this.captions.get(picture) ?? file.name);
    await put(this.path, file, name, true);
  }

  /**
   * Writes a caption or mask that came without its picture.
   *
   * @param {File} file
   */
  async replace(file) {
    const picture = pictureOf(file.name, [...this.captions.keys()]);
    if (picture) await this.give(picture, file);
    else await put(this.path, file, file.name, true);
  }
}

/**
 * What a folder holds, as our route tells it.
 *
 * @param {string} path
 * @returns {Promise<Partial<Told>>}
 */
export async function contents(path) {
  const query = new URLSearchParams({ folder: path });
  const answer = await answered(`${path}: the server did not tell what it holds`, `/blocklora/pictures?${query}`);
  return answer.json();
}

/**
 * Uploads a file; without `overwrite` the host gives it another name where it has one of that name and other content.
 *
 * @param {string} folder
 * @param {Blob} content
 * @param {string} name
 * @param {boolean} overwrite
 * @returns {Promise<string>} what the host called it
 */
export async function put(folder, content, name, overwrite) {
  /** @type {Record<string, string>} */
  const fields = { type: "input", subfolder: folder };
  if (overwrite) fields.overwrite = "true";
  const init = { method: "POST", body: formOf(content, name, fields) };
  return (await (await answered(`${name}: the server refused it`, "/upload/image", init)).json()).name;
}

/**
 * @param {string} problem what is told where there is no answer, or none that is good
 * @param {string} path
 * @param {RequestInit} [init]
 */
async function answered(problem, path, init) {
  const answer = await api.fetchApi(path, init).catch((error) => {
    throw new Error(`${problem} (no answer: ${error.message})`);
  });
  if (!answer.ok) throw new Error(`${problem} (${answer.status} ${answer.statusText})`);
  return answer;
}
