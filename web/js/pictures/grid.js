/** The pictures of a folder with their captions beneath. Importing it does nothing. */

import { el } from "../shared/dom.js";
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
 * @param {string} folder below the input folder
 * @param {Picture[]} pictures
 * @param {{ masks: boolean, fallback: string, onCaption: (picture: Picture, text: string) => Promise<void> }} options
 * fallback: the caption of those that have none; where it is empty, their folder's words are.
 */
export function grid(folder, pictures, options) {
  return el(
    "ul",
    { class: "bl-pictures", "aria-label": "Pictures" },
    ...pictures.map((picture) => cell(folder, picture, options)),
  );
}

/**
 * @param {string} folder
 * @param {Picture} picture
 * @param {Parameters<typeof grid>[2]} options
 */
function cell(folder, picture, { masks, fallback, onCaption }) {
  const size = picture.width ? `${picture.width} \u00d7 ${picture.height}` : "cannot be read";
  const repeats = picture.repeats > 1 ? ` \u00b7 ${picture.repeats}\u00d7` : "";
  return el(
    "li",
    { class: "bl-picture", "data-bad": Boolean(picture.problem) },
    el(
      "div",
      { class: "bl-frame" },
      image(folder, picture, picture.name, "bl-photo", `${picture.name}, ${size}`),
      masks && picture.mask ? image(folder, picture, besides(picture.name, picture.mask), "bl-mask", "") : null,
    ),
    el("div", { class: "bl-told bl-dim", title: picture.name }, picture.name),
    el("div", { class: "bl-told bl-dim" }, size + repeats, picture.mask ? " \u00b7 mask" : null),
    picture.problem ? el("p", { class: "bl-bad" }, picture.problem) : null,
    caption(picture, fallback || picture.words, onCaption),
  );
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

/**
 * @param {Picture} picture
 * @param {string} fallback
 * @param {(picture: Picture, text: string) => Promise<void>} onCaption
 */
function caption(picture, fallback, onCaption) {
  const area = el("textarea", {
    rows: 2,
    placeholder: fallback || "What is to be seen",
    "aria-label": `Caption of ${picture.name}`,
    // A caption that could not be read is not shown here, and must not be overwritten by what is typed.
    readonly: Boolean(picture.problem),
  });
  area.value = picture.caption;
  area.addEventListener("change", async () => {
    await onCaption(picture, area.value.trim());
    picture.caption = area.value.trim();
  });
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    const all = [...(area.closest("ul")?.querySelectorAll("textarea") ?? [])];
    const next = all[all.indexOf(area) + 1];
    if (next) next.focus();
    else area.blur();
  });
  return area;
}
