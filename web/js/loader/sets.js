/** The dialog of the lists that the user keeps. Importing it does nothing. */

import { openDialog } from "../shared/dialog.js";
import { el, fill } from "../shared/dom.js";
import { changeLists, readLists } from "./kept.js";

/** @typedef {import("./kept.js").Lists} Lists */

/**
 * Lists to take, to keep and to throw away.
 *
 * @param {{ text: string, onTaken: (text: string) => void, onClose: () => void }} options
 */
export async function openSets({ text, onTaken, onClose }) {
  const told = el("p", { role: "status", class: "bl-dim" });
  const rows = el("ul", { class: "bl-sets", "aria-label": "Kept lists" });
  const name = el("input", {
    class: "bl-grow",
    placeholder: "Name, such as four people",
    "aria-label": "Name of the list",
  });
  const keep = el("button", { type: "submit", class: "bl-main" }, "Keep this list");
  const form = el("form", { class: "bl-row" }, name, keep);
  const dialog = openDialog("Kept lists", [rows, form, told], onClose);
  const take = (/** @type {string} */ kept) => {
    dialog.close();
    onTaken(kept);
  };
  const drop = (/** @type {string} */ one) => save((all) => all.delete(one));
  let [asked, shown] = [0, 0];
  /**
   * @param {string} failed what is told where it does not come
   * @param {Promise<Lists>} coming
   */
  const show = async (failed, coming) => {
    const number = ++asked;
    try {
      const lists = await coming;
      // What was asked for before the last change may come after it.
      if (number < shown) return true;
      shown = number;
      const items = [...lists.keys()].sort().map((one) => row(one, lists.get(one) ?? "", { take, drop }));
      fill(rows, items.length ? items : el("li", { class: "bl-dim" }, "None yet. Name this one and keep it."));
      if (number === asked) told.textContent = "";
      return true;
    } catch (error) {
      told.textContent = `${failed}: ${error instanceof Error ? error.message : error}`;
      return false;
    }
  };
  /** @param {(lists: Lists) => void} change */
  const save = (change) => show("Not kept", changeLists(change));
  let warned = "";
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const title = name.value.trim();
    if (!title) return name.focus();
    const kept = await save((all) => {
      const known = all.has(title) && all.get(title) !== text && title !== warned;
      warned = title;
      if (known) throw new Error(`there is a list ${title} already. Keep it again to put this one in its place.`);
      all.set(title, text);
    });
    if (!kept) return;
    name.value = warned = "";
  });
  await show("Not read", readLists());
}

/**
 * @param {string} name
 * @param {string} text
 * @param {{ take: (text: string) => void, drop: (name: string) => void }} actions
 */
function row(name, text, { take, drop }) {
  return el(
    "li",
    { class: "bl-row" },
    el("button", { type: "button", class: "bl-grow bl-set", on: { click: () => take(text) } }, name),
    el("span", { class: "bl-dim" }, countOf(text)),
    el("button", { type: "button", "aria-label": `Throw ${name} away`, on: { click: () => drop(name) } }, "\u2715"),
  );
}

/** @param {string} text */
function countOf(text) {
  const lines = text.split("\n").filter((line) => line.trim() && !line.trim().startsWith("#"));
  return lines.length === 1 ? "1 file" : `${lines.length} files`;
}
