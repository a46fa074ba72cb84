/** Chooses files of the loras folders: search, folder, order, keys. Importing it does nothing. */

import { openDialog } from "../shared/dialog.js";
import { el, fill, setAttribute } from "../shared/dom.js";
import { allFiles, folderOf, hasAnswered, marksOf, onFiles, readFiles, stemOf } from "./files.js";
import { canName } from "./grammar.js";
import { thumb } from "./thumb.js";

/** @typedef {import("./files.js").LoraFile} LoraFile */

const MOST_SHOWN = 200;

const SILENT = "The server did not tell its files: see whether it still runs, then open this again.";

const WHERE =
  "Put LoRA files into ComfyUI's models/loras folder, or a folder in it; they show here a moment later. " +
  "The server takes no uploads of LoRAs.";

/**
 * @param {{ title: string, many: boolean, taken: string[], onChosen: (names: string[]) => void, onClose: () => void }} options
 * many: any number may be chosen. taken: names that the list has already, which are marked.
 */
export function openPicker(options) {
  new Picker(options);
}

class Picker {
  search = el("input", {
    type: "search",
    class: "bl-grow",
    placeholder: "Search names, words, bases",
    role: "combobox",
    "aria-label": "Search files",
    "aria-expanded": "true",
    "aria-controls": "blocklora-files",
    "aria-autocomplete": "list",
    autofocus: true,
    on: { input: () => this.list(0), keydown: (/** @type {KeyboardEvent} */ event) => this.key(event) },
  });
  folder = el("select", { "aria-label": "Folder", on: { change: () => this.list(0) } });
  order = el(
    "select",
    { "aria-label": "Order", on: { change: () => this.list(0) } },
    el("option", { value: "name" }, "By name"),
    el("option", { value: "new" }, "Newest first"),
  );
  files = el("div", {
    id: "blocklora-files",
    class: "bl-files",
    role: "listbox",
    "aria-label": "Files",
    tabindex: "-1",
  });
  count = el("span", { class: "bl-grow bl-dim", role: "status" });
  add = el("button", { type: "button", class: "bl-main", on: { click: () => this.done() } });

  /** @type {Set<string>} */
  chosen = new Set();

  /** @type {LoraFile[]} */
  shown = [];

  active = 0;

  /** @type {string | null} the folders that are offered */
  offered = null;

  /** @param {Parameters<typeof openPicker>[0]} options */
  constructor(options) {
    this.options = options;
    setAttribute(this.files, "aria-multiselectable", options.many ? "true" : "false");
    // A click chooses; the keys stay with the search.
    this.files.addEventListener("mousedown", (event) => event.preventDefault());
    const tools = el("div", { class: "bl-row" }, this.search, this.folder, this.order);
    const foot = el("div", { class: "bl-row" }, this.count, options.many && this.add);
    const hint = el("p", { class: "bl-dim bl-small" }, WHERE);
    const stop = onFiles(() => this.list());
    this.dialog = openDialog(options.title, [tools, this.files, foot, hint], () => {
      stop();
      options.onClose();
    });
    this.list();
    readFiles();
    this.search.focus();
  }

  /** @param {number} [active] */
  list(active) {
    const on = this.shown[this.active]?.name;
    this.folders();
    const found = this.found();
    this.shown = found.slice(0, MOST_SHOWN);
    // The keys stay with their file while others are read.
    const at = this.shown.findIndex((file) => file.name === on);
    this.active = active ?? (at < 0 ? Math.min(this.active, Math.max(0, this.shown.length - 1)) : at);
    fill(
      this.files,
      this.shown.map((file, at) => this.option(file, at)),
      found.length > MOST_SHOWN && el("p", { class: "bl-dim" }, `${found.length - MOST_SHOWN} more: search for them.`),
      !found.length && el("p", { class: "bl-dim" }, nothing()),
    );
    this.mark();
  }

  folders() {
    const names = [...new Set(allFiles().map((file) => folderOf(file.name)))].filter(Boolean).sort();
    const value = this.folder.value;
    const all = names.join("\n");
    if (all === this.offered) return;
    this.offered = all;
    const choices = ["", ...names].map((name) => el("option", { value: name }, name || "All folders"));
    fill(this.folder, choices);
    this.folder.value = names.includes(value) ? value : "";
    this.folder.hidden = !names.length;
  }

  found() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const folder = this.folder.value;
    const files = allFiles().filter((file) => {
      const text = [file.name, file.words, file.base, file.concept].join(" ").toLowerCase();
      return words.every((word) => text.includes(word)) && (!folder || file.name.startsWith(`${folder}/`));
    });
    if (this.order.value === "new") files.sort((one, other) => (other.changed ?? 0) - (one.changed ?? 0));
    return files;
  }

  /**
   * @param {LoraFile} file
   * @param {number} at
   */
  option(file, at) {
    const problem = canName(file.name) ? file.problem : "A list cannot hold this name: take | and # out of it.";
    const marks = marksOf(file).map(({ text, title }) => el("span", { class: "bl-mark", title }, text));
    const told = [file.words && `calls it: ${file.words}`, file.images && `${file.images} pictures`];
    return el(
      "div",
      {
        id: `blocklora-file-${at}`,
        class: "bl-file",
        role: "option",
        "aria-selected": String(this.chosen.has(file.name)),
        "aria-disabled": problem ? "true" : null,
        on: {
          click: (/** @type {MouseEvent} */ event) => (event.shiftKey ? this.upTo(at) : this.choose(at)),
          dblclick: () => this.only(at),
        },
      },
      thumb(file.name, file),
      el(
        "div",
        { class: "bl-grow" },
        el(
          "div",
          { class: "bl-name" },
          stemOf(file.name),
          el("span", { class: "bl-dim" }, folderOf(file.name) && `  ${folderOf(file.name)}`),
        ),
        problem
          ? el("div", { class: "bl-bad" }, problem)
          : el("div", { class: "bl-told bl-dim" }, ...marks, told.filter(Boolean).join(" \u00b7 ")),
      ),
      this.options.taken.includes(file.name) && el("span", { class: "bl-mark" }, "in the list"),
    );
  }

  /** Shows what is chosen and where the keys are. */
  mark() {
    [...this.files.querySelectorAll('[role="option"]')].forEach((option, at) => {
      option.classList.toggle("bl-active", at === this.active);
      setAttribute(option, "aria-selected", String(this.chosen.has(this.shown[at].name)));
    });
    const active = this.shown.length ? `blocklora-file-${this.active}` : null;
    setAttribute(this.search, "aria-activedescendant", active);
    const number = this.chosen.size;
    this.add.textContent = number > 1 ? `Add ${number} files` : "Add";
    this.add.disabled = !number;
    this.count.textContent = `${this.found().length} of ${allFiles().length} files`;
  }

  /** @param {number} at */
  usable(at) {
    const file = this.shown[at];
    return file && canName(file.name) && !file.problem;
  }

  /** @param {number} at */
  choose(at) {
    this.active = at;
    if (this.usable(at)) {
      const { name } = this.shown[at];
      if (!this.options.many) return this.only(at);
      if (!this.chosen.delete(name)) this.chosen.add(name);
    }
    this.mark();
  }

  /**
   * All from the last one to this.
   * @param {number} at
   */
  upTo(at) {
    if (!this.options.many) return this.choose(at);
    const [from, to] = [Math.min(this.active, at), Math.max(this.active, at)];
    for (let one = from; one <= to; one++) if (this.usable(one)) this.chosen.add(this.shown[one].name);
    this.active = at;
    this.mark();
  }

  /** @param {number} at */
  only(at) {
    if (!this.usable(at)) return;
    this.chosen.add(this.shown[at].name);
    this.done();
  }

  done() {
    const names = [...this.chosen];
    this.dialog.close();
    if (names.length) this.options.onChosen(names);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    // Enter also ends what is composed of several keys.
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (step) {
      this.active = Math.min(this.shown.length - 1, Math.max(0, this.active + step));
      this.mark();
      this.files.children[this.active]?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" && event.shiftKey) {
      this.choose(this.active);
    } else if (event.key === "Enter") {
      if (this.chosen.size) this.done();
      else this.only(this.active);
    } else return;
    event.preventDefault();
  }
}

/** What is said where no file is shown. */
function nothing() {
  if (allFiles().length) return "Nothing is called so.";
  return hasAnswered() ? "No LoRA file yet." : SILENT;
}
