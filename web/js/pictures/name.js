/** The question where pictures go. Importing it does nothing. */

import { openDialog } from "../shared/dialog.js";
import { el } from "../shared/dom.js";
import { folderName } from "./upload.js";

/**
 * Asks where the pictures go: a new folder, or the one that is shown.
 *
 * @param {{ title: string, name: string, current: string, left: string[], onNamed: (name: string) => void }} options
 */
export function askName({ title, name, current, left, onNamed }) {
  const field = el("input", {
    class: "bl-grow",
    value: name,
    placeholder: "such as my_dog",
    "aria-label": "Name of the folder",
    required: true,
    autofocus: true,
  });
  const told = el("p", { class: "bl-dim bl-small" }, "A folder of this name in ComfyUI's input folder holds them.");
  const form = el(
    "form",
    { class: "bl-column" },
    el("label", { class: "bl-column" }, "Name", field),
    told,
    left.length ? el("p", { class: "bl-note" }, `Left out: ${left.slice(0, 5).join(", ")}`) : null,
    el(
      "div",
      { class: "bl-row" },
      current && el("button", { type: "button", on: { click: () => end(current) } }, `Add to ${current}`),
      el("span", { class: "bl-grow" }),
      el("button", { type: "submit", class: "bl-main" }, "Add"),
    ),
  );
  const dialog = openDialog(title, [form]);
  field.select();
  const end = (/** @type {string} */ folder) => {
    dialog.close();
    onNamed(folder);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const folder = folderName(field.value);
    if (folder) end(folder);
    else field.focus();
  });
}
