/** A dialog above the page, closed by Escape, its button, or a click beside it. Importing it does nothing. */

import { el, useStyles } from "./dom.js";

let dialogs = 0;

/**
 * Opens a dialog with a title. Focus goes to the first element with `autofocus`, and back when it closes.
 *
 * @param {string} title
 * @param {(HTMLElement | null | false)[]} content
 * @param {() => void} [onClose]
 * @returns {HTMLDialogElement}
 */
export function openDialog(title, content, onClose) {
  useStyles(new URL("style.css", import.meta.url));
  useStyles(new URL("lists.css", import.meta.url));
  useStyles(new URL("dialog.css", import.meta.url));
  const id = `blocklora-dialog-${++dialogs}`;
  const close = el(
    "button",
    { type: "button", class: "bl-plain", "aria-label": "Close", on: { click: end } },
    "\u2715",
  );
  const dialog = el(
    "dialog",
    { class: "blocklora bl-dialog", "aria-labelledby": id },
    el("header", { class: "bl-row" }, el("h2", { id, class: "bl-grow" }, title), close),
    ...content,
  );
  function end() {
    dialog.close();
  }
  dialog.addEventListener("close", () => {
    dialog.remove();
    onClose?.();
  });
  dialog.addEventListener("pointerdown", (event) => {
    if (event.target === dialog && isBeside(dialog, event)) end();
  });
  for (const kind of ["keydown", "keyup", "pointerdown", "wheel", "paste", "copy"]) {
    dialog.addEventListener(kind, (event) => event.stopPropagation());
  }
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * @param {HTMLElement} dialog
 * @param {PointerEvent} event
 */
function isBeside(dialog, event) {
  const box = dialog.getBoundingClientRect();
  return event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom;
}
