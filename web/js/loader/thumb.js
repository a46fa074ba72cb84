/** A file's picture, or a tile with its first letter. Importing it does nothing. */

import { el } from "../shared/dom.js";
import { pictureOf, stemOf } from "./files.js";

/**
 * @param {string} name of the file
 * @param {import("./files.js").LoraFile | undefined} file
 * @returns {HTMLElement}
 */
export function thumb(name, file) {
  const letter = el("span", { class: "bl-thumb", "aria-hidden": "true" }, (stemOf(name)[0] ?? "?").toUpperCase());
  letter.style.setProperty("--hue", String(hueOf(name)));
  const src = pictureOf(file);
  if (!src) return letter;
  const picture = el("img", { class: "bl-thumb", src, alt: "", loading: "lazy", draggable: "false" });
  picture.addEventListener("error", () => picture.replaceWith(letter));
  return picture;
}

/** @param {string} text */
function hueOf(text) {
  let sum = 7;
  for (const letter of text) sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 360;
  return sum;
}
