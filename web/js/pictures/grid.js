/** The pictures of a folder with their captions beneath. Importing it does nothing. */

import { el, fill, setAttribute } from "../shared/dom.js";
import { api } from "../shared/host.js";

const SHOWN = /\.(png|jpe?g|jfif|webp|avif|gif|bmp)$/i;

/**
 * @typedef {object} Picture
 * @property {string} name within the folder, parted by /
 * @property {number} width
 * @property {number} height
 * @property {string} caption
 * @property {string} caption_file
 * @property {string} mask the mask's file, "" for none
 * @property {number} repeats
 * @property {string} words what its folder says it shows
 * @property {number} changed
 * @property {string} problem
 */

/**
 * @typedef {{ masks: boolean, fallback: string }} Options
 * fallback: the caption of those that have none; where it is empty, their folder's words are.
 * @typedef {(folder: string, picture: Picture, text: string) => Promise<string>} Write
 * writes a caption and tells why it could not, "" where it could
 */

export class Grid {
  element = el("ul", { class: "bl-pictures", "aria-label": "Pictures" });

  /** @type {Map<string, Cell>} by the path; of pictures that are not shown, those whose text is not written */
  #cells = new Map();

  /** @param {Write} write */
  constructor(write) {
    this.write = write;
  }

  /**
   * @param {string} folder below the input folder
   * @param {Picture[]} pictures
   * @param {Options} options
   */
  show(folder, pictures, options) {
    const shown = new Set(pictures.map((picture) => this.#cell(folder, picture, options)));
    for (const [path, cell] of this.#cells) {
      if (shown.has(cell)) continue;
      cell.element.remove();
      if (!cell.isTyped) this.#cells.delete(path);
    }
    // What stays is not moved: a field that is loses the focus.
    [...shown].forEach(({ element }, at) => {
      const there = this.element.children[at] ?? null;
      if (there !== element) this.element.insertBefore(element, there);
    });
  }

  /**
   * @param {string} folder
   * @param {Picture} picture
   * @param {Options} options
   */
  #cell(folder, picture, options) {
    const path = `${folder}/${picture.name}`;
    const cell = this.#cells.get(path) ?? new Cell(folder, picture, this.write);
    this.#cells.set(path, cell);
    cell.show(picture, options);
    return cell;
  }
}

class Cell {
  shown = el("div", { class: "bl-shown" });
  problem = el("p", { class: "bl-bad" });

  /** What the file holds, as the field has it. */
  #known = "";

  #refused = "";
  #writing = false;

  /**
   * @param {string} folder
   * @param {Picture} picture
   * @param {Write} write
   */
  constructor(folder, picture, write) {
    this.folder = folder;
    this.picture = picture;
    this.write = write;
    // A field that is left as it was is not changed, but may hold what was refused.
    const on = { change: () => this.#save(), blur: () => this.#save(), keydown: toNext };
    this.area = el("textarea", { rows: 2, "aria-label": `Caption of ${picture.name}`, on });
    this.element = el("li", { class: "bl-picture" }, this.shown, this.problem, this.area);
  }

  /** Whether its text is another than its file's. */
  get isTyped() {
    return this.area.value !== this.#known;
  }

  /**
   * @param {Picture} picture
   * @param {Options} options
   */
  show(picture, { masks, fallback }) {
    const { folder, area } = this;
    const { isTyped } = this;
    this.picture = picture;
    this.#known = picture.caption.replace(/\r\n?/g, "\n");
    // Being given a text, even its own, it would lose the place of the caret.
    if (!isTyped && this.isTyped) area.value = this.#known;
    area.placeholder = fallback || picture.words || "What is to be seen";
    // A caption that could not be read is not shown here, and must not be overwritten by what is typed.
    area.readOnly = Boolean(picture.problem);
    const size = picture.width ? `${picture.width} \u00d7 ${picture.height}` : "cannot be read";
    const repeats = picture.repeats > 1 ? ` \u00b7 ${picture.repeats}\u00d7` : "";
    fill(
      this.shown,
      el(
        "div",
        { class: "bl-frame" },
        image(folder, picture, picture.name, "bl-photo", `${picture.name}, ${size}`),
        masks && picture.mask ? image(folder, picture, besides(picture.name, picture.mask), "bl-mask", "") : null,
      ),
      el("div", { class: "bl-told bl-dim", title: picture.name }, picture.name),
      el("div", { class: "bl-told bl-dim" }, size + repeats, picture.mask ? " \u00b7 mask" : null),
    );
    this.#mark();
  }

  async #save() {
    if (this.#writing) return;
    this.#writing = true;
    while (this.isTyped && !this.picture.problem) {
      const text = this.area.value;
      this.#refused = await this.write(this.folder, this.picture, text.trim());
      if (this.#refused) break;
      this.#known = text;
      this.picture.caption = text.trim();
      // What is being typed again is written when it is left.
      if (document.activeElement === this.area) break;
    }
    this.#writing = false;
    this.#mark();
  }

  #mark() {
    if (!this.isTyped) this.#refused = "";
    const refused = this.#refused && `${this.#refused}. Leave the field once more to try again.`;
    this.problem.textContent = this.picture.problem || refused;
    this.problem.hidden = !this.problem.textContent;
    setAttribute(this.element, "data-bad", !this.problem.hidden);
  }
}

/**
 * Enter goes to the next picture.
 *
 * @param {KeyboardEvent} event
 */
function toNext(event) {
  // Some languages' letters are put together from several keys: Enter ends that.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  const area = /** @type {HTMLTextAreaElement} */ (event.currentTarget);
  const all = [...(area.closest("ul")?.querySelectorAll("textarea") ?? [])];
  const next = all[all.indexOf(area) + 1];
  if (next) next.focus();
  else area.blur();
}

/**
 * @param {string} folder
 * @param {Picture} picture
 * @param {string} name
 * @param {string} kind
 * @param {string} alt
 */
function image(folder, picture, name, kind, alt) {
  const at = name.lastIndexOf("/");
  const query = new URLSearchParams({
    filename: name.slice(at + 1),
    subfolder: [folder, name.slice(0, Math.max(at, 0))].filter(Boolean).join("/"),
    type: "input",
    rand: String(picture.changed),
  });
  // Pages read these by themselves; for others the server would have to make a picture, one after the other.
  if (!SHOWN.test(name)) query.set("preview", "webp;60");
  const src = api.apiURL(`/view?${query}`);
  return el("img", { class: kind, src, alt, loading: "lazy", decoding: "async", draggable: "false" });
}

/**
 * @param {string} name
 * @param {string} file
 */
const besides = (name, file) => name.slice(0, name.lastIndexOf("/") + 1) + file;
