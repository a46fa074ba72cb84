/** BlockLoRA Loader: its list of files as rows. The text of the input `files` stays the truth; rows only edit it. */

import { addPanel, el, fill, useStyles } from "../shared/dom.js";
import { takeDrops } from "../shared/drops.js";
import { app } from "../shared/host.js";
import { after, isLinked, standIn } from "../shared/widgets.js";
import { dragRow } from "./drag.js";
import { check, onFiles, readFiles, stemOf } from "./files.js";
import { changed, moved, parseLine, parseList, textOf, withAdded, without } from "./grammar.js";
import { openPicker } from "./picker.js";
import { row } from "./row.js";
import { openSets } from "./sets.js";

/**
 * @typedef {import("./grammar.js").Line} Line
 * @typedef {import("../shared/host.js").LGraphNode} LGraphNode
 */

const CHECK_AFTER = 150;

class LoaderList {
  status = el("span", { role: "status", class: "bl-grow bl-dim" });
  hint = el("p", { class: "bl-note", role: "alert", hidden: true });
  body = el("div");
  text = button("text", "As text", () => this.toggle());
  add = button("add", "+ Add files", () => this.pick());
  root = el("div", { class: "bl-column bl-loader" });

  /** @type {Line[]} */
  lines = [];

  /** @type {Record<string, import("./files.js").Told>} */
  told = {};

  /** @type {number | null} the line whose details are shown */
  open = null;

  asText = false;

  /** @param {LGraphNode} node */
  constructor(node) {
    this.node = node;
    this.add.classList.add("bl-main");
    const sets = button("sets", "Lists\u2026", () => this.sets());
    fill(this.root, el("div", { class: "bl-row" }, this.status, sets, this.text), this.body, this.hint, this.add);
    this.value = standIn(node, "files", () => this.read());
    addPanel(node, "list", this.root, { minWidth: 400 });
    after(node, "onConnectionsChange", () => this.render());
    after(
      node,
      "onRemoved",
      onFiles(() => this.render()),
    );
    takeDrops(node, this.root, (dropped) => this.dropped(dropped.map(({ file }) => file)));
    this.read();
    readFiles();
  }

  /** Takes the text that the input has now. */
  read() {
    this.lines = parseList(this.value?.get() ?? "");
    if (this.open !== null && !this.lines[this.open]?.entry) this.open = null;
    this.render();
    this.check();
  }

  /**
   * @param {Line[]} lines
   * @param {{ line?: number, part: string }} [focus] where it goes
   */
  set(lines, focus) {
    this.hint.hidden = true;
    this.lines = lines;
    this.value.set(textOf(lines));
    this.render(focus);
    this.check();
  }

  check() {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      const text = textOf(this.lines);
      const told = await check(text);
      if (text !== textOf(this.lines)) return;
      this.told = told;
      this.render();
    }, CHECK_AFTER);
  }

  /** The lines that are rows: entries, and what is meant to be one. */
  places() {
    return this.lines.flatMap((line, at) => (line.entry || line.problem ? [at] : []));
  }

  /** @param {{ line?: number, part: string }} [focus] */
  render(focus = this.focused()) {
    const linked = isLinked(this.node, "files");
    const places = this.places();
    const on = places.filter((at) => this.lines[at].entry?.on).length;
    this.status.textContent = linked
      ? "The list comes through the link."
      : places.length
        ? `${on} of ${places.length} on`
        : "No file yet";
    this.add.hidden = linked || this.asText;
    this.body.hidden = linked;
    if (this.asText) this.renderText();
    else
      fill(
        this.body,
        el("ul", { class: "bl-list", "aria-label": "LoRA files" }, ...places.map((at, place) => this.row(at, place))),
      );
    this.refocus(focus);
  }

  renderText() {
    if (document.activeElement?.matches?.("textarea") && this.body.contains(document.activeElement)) return;
    const area = el("textarea", { class: "bl-lines", rows: 8, spellcheck: "false", "aria-label": "Files, one a line" });
    area.value = textOf(this.lines);
    area.addEventListener("input", () => {
      this.lines = parseList(area.value);
      this.value.set(area.value);
      this.check();
      this.tell();
    });
    fill(this.body, area, this.problems());
  }

  /** What is wrong, beneath the text. */
  tell() {
    this.body.querySelector("ul")?.replaceWith(this.problems());
  }

  problems() {
    const told = this.lines.flatMap((line, at) => {
      const one = this.told[at + 1];
      return [line.problem || one?.problem, ...(one?.notes ?? [])]
        .filter(Boolean)
        .map((text) => `Line ${at + 1}: ${text}`);
    });
    return el(
      "ul",
      { class: "bl-list", "aria-label": "To mind" },
      ...told.map((text) => el("li", { class: "bl-note" }, text)),
    );
  }

  /**
   * @param {number} at
   * @param {number} place
   */
  row(at, place) {
    return row({
      line: this.lines[at],
      told: this.told[at + 1],
      place: place + 1,
      open: this.open === at,
      onChange: (changes, part) => this.set(changed(this.lines, at, changes), { line: at, part }),
      onRaw: (raw) => this.set(this.lines.with(at, parseLine(raw, this.lines[at].end)), { line: at, part: "grip" }),
      onRemove: () => this.remove(at, place),
      onPick: () => this.pick(at),
      onOpen: () => {
        this.open = this.open === at ? null : at;
        this.render({ line: at, part: "more" });
      },
      onGrip: (event) => this.drag(event, at),
      onMove: (by) => this.move(at, place + by),
    });
  }

  /**
   * @param {number} at
   * @param {number} place
   */
  remove(at, place) {
    if (this.open !== null) this.open = null;
    this.told = {};
    const lines = without(this.lines, at);
    const left = lines.flatMap((line, one) => (line.entry || line.problem ? [one] : []));
    const next = left[Math.min(place, left.length - 1)];
    this.set(lines, next === undefined ? { part: "add" } : { line: next, part: "grip" });
  }

  /**
   * @param {number} at
   * @param {number} place where the row is to stand among the rows
   */
  move(at, place) {
    const places = this.places();
    if (place < 0 || place >= places.length || places[place] === at) return;
    const part = this.focused()?.part ?? "grip";
    const wasOpen = this.open === at;
    this.told = {};
    this.open = wasOpen ? places[place] : null;
    this.set(moved(this.lines, at, places[place]), { line: places[place], part });
    this.status.textContent = `Number ${place + 1} of ${places.length}`;
  }

  /**
   * @param {PointerEvent} event
   * @param {number} at
   */
  drag(event, at) {
    const items = [...this.body.querySelectorAll("li.bl-item")];
    dragRow(event, items, this.places().indexOf(at), (place) => this.move(at, place));
  }

  /** @param {number} [at] the line whose file is to be another */
  pick(at) {
    const many = at === undefined;
    openPicker({
      title: many ? "Add LoRA files" : "Choose another file",
      many,
      taken: Object.values(this.told).flatMap((told) => told.file ?? []),
      onChosen: (names) => (many ? this.added(names) : this.set(changed(this.lines, at, { file: names[0] }))),
      onClose: () => this.refocus(many ? { part: "add" } : { line: at, part: "pick" }),
    });
  }

  /** @param {string[]} names */
  added(names) {
    const entries = names.map((file) => ({ file, strength: 1, clip: null, on: true, words: "" }));
    this.set(withAdded(this.lines, entries), { part: "add" });
  }

  sets() {
    openSets({
      text: textOf(this.lines),
      onTaken: (text) => this.set(parseList(text), { part: "sets" }),
      onClose: () => this.refocus({ part: "sets" }),
    });
  }

  toggle() {
    this.asText = !this.asText;
    this.text.setAttribute("aria-pressed", String(this.asText));
    this.render({ part: "text" });
  }

  /**
   * Files from the desktop: those that lie in a loras folder are added.
   *
   * @param {File[]} files
   */
  async dropped(files) {
    await readFiles();
    const told = await check(files.map((file) => file.name).join("\n"));
    const found = files.map((_, at) => told[at + 1]?.file);
    const names = found.filter((name) => name !== undefined);
    if (names.length) this.added(names);
    const missing = files.filter((_, at) => !found[at]).map((file) => stemOf(file.name));
    this.hint.hidden = !missing.length;
    this.hint.textContent =
      `${missing.join(", ")}: not in a loras folder. Copy it into ComfyUI's models/loras, then drop it again; ` +
      "the server takes no uploads of LoRAs.";
  }

  /** The row and the control that have the focus. */
  focused() {
    const active = document.activeElement;
    if (!(active instanceof HTMLElement) || !this.root.contains(active)) return undefined;
    const item = active.closest("li.bl-item");
    const place = item ? [...this.body.querySelectorAll("li.bl-item")].indexOf(item) : -1;
    return { line: place < 0 ? undefined : this.places()[place], part: active.dataset.part ?? "" };
  }

  /** @param {{ line?: number, part: string }} [focus] */
  refocus(focus) {
    if (!focus?.part) return;
    const items = this.body.querySelectorAll("li.bl-item");
    const within = focus.line === undefined ? this.root : items[this.places().indexOf(focus.line)];
    const control = within?.querySelector(`[data-part="${focus.part}"]`) ?? within?.querySelector("[data-part]");
    if (control instanceof HTMLElement && control !== document.activeElement) control.focus({ preventScroll: true });
  }
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
