/** Lists that the user keeps, in the user's folder through the host's own userdata. Importing it does nothing. */

import { openDialog } from "../shared/dialog.js";
import { el, fill } from "../shared/dom.js";
import { api } from "../shared/host.js";

const FILE = "/userdata/blocklora%2Flists.json";

/** @returns {Promise<Map<string, string>>} name of a list -> its text */
async function read() {
  const answer = await api.fetchApi(FILE);
  if (!answer.ok) return new Map();
  const kept = await answer.json().catch(() => null);
  const entries = kept && typeof kept === "object" ? Object.entries(kept) : [];
  return new Map(entries.filter(([, text]) => typeof text === "string"));
}

/** @param {Map<string, string>} lists */
async function write(lists) {
  const body = JSON.stringify(Object.fromEntries(lists), null, 1);
  const answer = await api.fetchApi(`${FILE}?overwrite=true`, { method: "POST", body });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
}

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
  let lists = await read();

  const show = () => {
    const items = [...lists.keys()]
      .sort()
      .map((one) =>
        el(
          "li",
          { class: "bl-row" },
          el("button", { type: "button", class: "bl-grow bl-set", on: { click: () => take(one) } }, one),
          el("span", { class: "bl-dim" }, countOf(lists.get(one) ?? "")),
          el("button", { type: "button", "aria-label": `Throw ${one} away`, on: { click: () => drop(one) } }, "\u2715"),
        ),
      );
    fill(rows, items.length ? items : el("li", { class: "bl-dim" }, "None yet. Name this one and keep it."));
  };
  const take = (/** @type {string} */ one) => {
    dialog.close();
    onTaken(lists.get(one) ?? "");
  };
  /** @param {(lists: Map<string, string>) => void} change */
  const save = async (change) => {
    try {
      // Another page may have kept one meanwhile.
      lists = await read();
      change(lists);
      await write(lists);
      told.textContent = "";
    } catch (error) {
      told.textContent = `Not kept: ${error instanceof Error ? error.message : error}`;
    }
    show();
  };
  const drop = (/** @type {string} */ one) => save((all) => all.delete(one));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const title = name.value.trim();
    if (!title) return name.focus();
    name.value = "";
    save((all) => all.set(title, text));
  });
  show();
}

/** @param {string} text */
function countOf(text) {
  const lines = text.split("\n").filter((line) => line.trim() && !line.trim().startsWith("#"));
  return lines.length === 1 ? "1 file" : `${lines.length} files`;
}
