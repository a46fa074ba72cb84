/** BlockLoRA Loader: its list of files as rows. The text of the input `files` stays the truth; rows only edit it. */

import { addPanel, el, fill, useStyles } from "../shared/dom.js";
import { takeDrops } from "../shared/drops.js";
import { whileAlive } from "../shared/events.js";
import { app } from "../shared/host.js";
import { isLinked } from "../shared/links.js";
import { after, standIn } from "../shared/widgets.js";
import { dragRow } from "./drag.js";
import { check, onFiles, readFiles, stemOf } from "./files.js";
import { foldButton } from "./fold.js";
import { canName, changed, moved, parseList, rewritten, textOf, withAdded, without } from "./grammar.js";
import { openPicker } from "./picker.js";
import { Row } from "./row.js";
import { openSets } from "./sets.js";
import { TextView } from "./text.js";

/**
 * @typedef {import("./grammar.js").Line} Line
 * @typedef {import("./files.js").Told} Told
 * @typedef {import("../shared/host.js").LGraphNode} LGraphNode
 */

const CHECK_AFTER = 150;
const FOLDED = ["prompts", "pictures", "steps", "size"];
const SILENT = "The server did not answer: the list is not checked.";

class LoaderList {
  status = el("span", { role: "status", class: "bl-grow bl-dim" });
  hint = el("p", { class: "bl-note", role: "alert", hidden: true });
  list = el("ul", { class: "bl-list", "aria-label": "LoRA files" });
  view = new TextView((text) => this.typed(text));
  text = button("text", "As text", () => this.toggle());
  add = button("add", "+ Add files", () => this.pick());
  root = el("div", { class: "bl-column bl-loader" });

  /** @type {Row[]} */
  rows = [];

  /** @type {Line[]} */
  lines = [];

  /** @type {Record<string, Told>} */
  told = {};

  /** @type {number | null} the row whose details are shown */
  open = null;

  asText = false;

  timer = 0;

  /** Whether the server answered when it was to check the list. */
  answered = true;

  /** @type {import("./row.js").Actions} */
  actions = {
    change: (place, changes) => this.set(changed(this.lines, this.at(place), changes)),
    rewrite: (place, raw) => this.set(rewritten(this.lines, this.at(place), raw)),
    remove: (place) => this.remove(place),
    pick: (place) => this.pick(place),
    open: (place) => {
      this.open = this.open === place ? null : place;
      this.render();
    },
    drag: (place, event) => {
      const items = this.rows.map((row) => row.element);
      dragRow(event, items, place, (to) => this.move(place, to));
    },
    move: (place, to) => this.move(place, to),
  };

  /** @param {LGraphNode} node */
  constructor(node) {
    this.node = node;
    this.add.classList.add("bl-main");
    const sets = button("sets", "Lists\u2026", () => this.sets());
    const fold = foldButton(node, "Settings", FOLDED);
    const head = el("div", { class: "bl-row" }, this.status, fold, sets, this.text);
    fill(this.root, head, this.list, this.view.element, this.hint, this.add);
    this.value = standIn(node, "files", () => this.read());
    const { element } = addPanel(node, "list", this.root, { minWidth: 400 });
    whileAlive(node, onFiles, () => {
      this.render();
      // Not put off by every answer while there are many files to read.
      if (!this.timer) this.check();
    });
    after(node, "onConnectionsChange", () => this.render());
    takeDrops(node, element, (dropped) => this.dropped(dropped.map(({ file }) => file)));
    this.read();
    readFiles();
  }

  /** Takes the text that the input has now. */
  read() {
    this.open = null;
    this.lines = parseList(this.value.get());
    this.render();
    this.check();
  }

  /** @param {Line[]} lines */
  set(lines) {
    this.told = carried(this.told, this.lines, lines);
    this.hint.hidden = true;
    this.lines = lines;
    this.value.set(textOf(lines));
    this.render();
    this.check();
  }

  /** @param {string} text */
  typed(text) {
    this.set(parseList(text));
  }

  check() {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(async () => {
      this.timer = 0;
      const text = textOf(this.lines);
      const told = await check(text);
      if (text !== textOf(this.lines)) return;
      this.answered = Boolean(told);
      this.told = told ?? this.told;
      this.render();
    }, CHECK_AFTER);
  }

  /** The lines that are rows: entries, and what is meant to be one. */
  places() {
    return this.lines.flatMap((line, at) => (line.entry || line.problem ? [at] : []));
  }

  /** @param {number} place */
  at(place) {
    return this.places()[place];
  }

  render() {
    const linked = isLinked(this.node, "files");
    const places = this.places();
    this.status.textContent = linked ? "The list comes through the link." : this.count(places);
    this.add.hidden = linked || this.asText;
    this.list.hidden = linked || this.asText;
    this.view.element.hidden = linked || !this.asText;
    if (this.asText) this.view.show(this.lines, textOf(this.lines), this.told);
    while (this.rows.length < places.length) this.rows.push(new Row(this.rows.length, this.actions));
    this.rows.length = places.length;
    while (this.list.children.length > places.length) this.list.lastChild?.remove();
    this.rows.forEach((row, place) => {
      const at = places[place];
      row.show(this.lines[at], this.told[at + 1], this.open === place);
      if (!row.element.parentNode) this.list.append(row.element);
    });
  }

  /** @param {number[]} places */
  count(places) {
    if (!places.length) return "No file yet";
    const on = places.filter((at) => this.lines[at].entry?.on).length;
    return `${on} of ${places.length} on${this.answered ? "" : `. ${SILENT}`}`;
  }

  /** @param {number} place */
  remove(place) {
    this.open = null;
    this.set(without(this.lines, this.at(place)));
    const next = this.rows[Math.min(place, this.rows.length - 1)];
    (next?.grip ?? this.add).focus({ preventScroll: true });
  }

  /**
   * @param {number} place
   * @param {number} to where the row is to stand
   */
  move(place, to) {
    if (to === place || !this.rows[to]) return;
    const part = /** @type {HTMLElement} */ (document.activeElement)?.dataset?.part ?? "grip";
    this.open = this.open === place ? to : null;
    this.set(moved(this.lines, this.at(place), this.at(to)));
    this.status.textContent = `Number ${to + 1} of ${this.rows.length}`;
    this.focus(this.rows[to].element, part);
  }

  /** @param {number} [place] of the row whose file is to be another */
  pick(place) {
    const many = place === undefined;
    openPicker({
      title: many ? "Add LoRA files" : "Choose another file",
      many,
      taken: Object.values(this.told).flatMap((told) => told.file ?? []),
      onChosen: (names) =>
        many ? this.added(names) : this.set(changed(this.lines, this.at(place), { file: names[0] })),
      onClose: () => (many ? this.focus(this.root, "add") : this.rows[place]?.title.focus()),
    });
  }

  /** @param {string[]} names */
  added(names) {
    const entries = names.map((file) => ({ file, strength: 1, clip: null, on: true, words: "" }));
    this.set(withAdded(this.lines, entries));
  }

  sets() {
    openSets({
      text: textOf(this.lines),
      onTaken: (text) => this.set(parseList(text)),
      onClose: () => this.focus(this.root, "sets"),
    });
  }

  toggle() {
    this.asText = !this.asText;
    this.text.setAttribute("aria-pressed", String(this.asText));
    this.render();
  }

  /**
   * Files from the desktop: those that lie in a loras folder are added.
   *
   * @param {File[]} files
   */
  async dropped(files) {
    const dropped = files.map(({ name }) => name);
    const able = dropped.filter(canName);
    await readFiles();
    const told = await check(able.join("\n"));
    if (!told) return this.say(["The server did not answer. Nothing was added: drop the files again."]);
    const found = able.map((_, at) => told[at + 1]?.file);
    const names = found.filter((name) => name !== undefined).filter(canName);
    if (names.length) this.added(names);
    const missing = able.filter((_, at) => !found[at]).map(stemOf);
    const unable = [...dropped.filter((name) => !canName(name)), ...found.filter((name) => name && !canName(name))];
    this.say([
      missing.length &&
        `${missing.join(", ")}: not in a loras folder. Copy it into ComfyUI's models/loras, then drop it again; ` +
          "the server takes no uploads of LoRAs.",
      unable.length &&
        `${unable.join(", ")}: a list cannot hold this name. Take | and # out of it, then drop it again.`,
    ]);
  }

  /** @param {(string | 0)[]} told */
  say(told) {
    this.hint.textContent = told.filter(Boolean).join(" ");
    this.hint.hidden = !this.hint.textContent;
  }

  /**
   * @param {HTMLElement} within
   * @param {string} part
   */
  focus(within, part) {
    const control = within.querySelector(`[data-part="${part}"]`);
    if (control instanceof HTMLElement) control.focus({ preventScroll: true });
  }
}

/**
 * What was told of lines that stay, wherever they stand now.
 *
 * @param {Record<string, Told>} told
 * @param {Line[]} before
 * @param {Line[]} lines
 */
function carried(told, before, lines) {
  const known = new Map(before.map((line, at) => [line.entry, told[at + 1]]));
  /** @type {Record<string, Told>} */
  const found = {};
  lines.forEach(({ entry }, at) => {
    const alike = before.length === lines.length && before[at].entry?.file === entry?.file ? told[at + 1] : undefined;
    const one = known.get(entry) ?? alike;
    if (entry && one) found[at + 1] = one;
  });
  return found;
}

/**
 * @param {string} part
 * @param {string} text
 * @param {() => void} click
 */
function button(part, text, click) {
  return el("button", { type: "button", "data-part": part, on: { click } }, text);
}

app.registerExtension({
  name: "blocklora.loader",
  nodeCreated(node) {
    if (node.comfyClass !== "BlockLoRALoader") return;
    useStyles(new URL("../shared/lists.css", import.meta.url));
    useStyles(new URL("loader.css", import.meta.url));
    new LoaderList(/** @type {any} */ (node));
  },
  refreshComboInNodes: () => readFiles(),
});
