/** BlockLoRA Images: drop pictures, name their folder, write captions. What is on the disk stays the truth. */

import { addPanel, el, fill, useStyles } from "../shared/dom.js";
import { takeDrops } from "../shared/drops.js";
import { app } from "../shared/host.js";
import { isLinked } from "../shared/links.js";
import { after, setValue } from "../shared/widgets.js";
import { contents } from "./folder.js";
import { Grid } from "./grid.js";
import { askName } from "./name.js";
import { sorted, upload, writeCaption } from "./upload.js";

/**
 * @typedef {import("../shared/drops.js").Dropped} Dropped
 * @typedef {import("./grid.js").Picture} Picture
 */

const LINKED = {
  short: "The folder comes through the link",
  long:
    "Pictures and captions are not taken here: which folder it is, is chosen where the link comes from. Drop them onto " +
    "another Images + Captions node without that link, outside this subgraph if it is in one, and choose their folder " +
    "where the link comes from.",
};

class Pictures {
  status = el("span", { class: "bl-grow", role: "status" });
  chooser = el("input", {
    type: "file",
    multiple: true,
    accept: "image/*,.txt,.caption",
    hidden: true,
    "aria-label": "Pictures to add",
    on: { change: () => this.chosen() },
  });
  overlay = el("input", { type: "checkbox", checked: true, on: { change: () => this.showMasks() } });
  mask = el("label", { class: "bl-row", hidden: true }, this.overlay, "masks");
  advice = el("ul", { class: "bl-advice", "aria-label": "To mind" });
  add = el("button", { type: "button", on: { click: () => this.chooser.click() } }, "+ Add pictures");
  grid = new Grid((folder, picture, text) => this.caption(folder, picture, text));
  empty = el("p", { class: "bl-empty bl-dim" });
  body = el("div", { class: "bl-scroll bl-grow" });
  root = el("div", { class: "bl-column bl-images" });

  /** @type {Partial<import("./folder.js").Told>} */
  told = {};

  /** Why the server did not tell. */
  failed = "";

  /** What came of the last upload, where its pictures do not tell. */
  notice = "";

  reads = 0;
  written = 0;

  /** The folder that was told of: another may be chosen already, whose captions are not these. */
  shown = "";

  masks = true;
  wasLinked = false;

  /** @param {import("../shared/host.js").LGraphNode} node */
  constructor(node) {
    this.node = node;
    /** @type {any} */
    this.folder = node.widgets?.find((one) => one.name === "folder");
    /** @type {any} */
    this.fallback = node.widgets?.find((one) => one.name === "default_caption");
    const again = "Look into the folder again";
    const on = { click: () => this.lookAgain() };
    const look = el("button", { type: "button", title: again, "aria-label": again, on }, "\u21bb");
    const head = el("div", { class: "bl-row" }, this.status, this.mask, look, this.add, this.chooser);
    fill(this.root, head, this.advice, this.body);
    const { element } = addPanel(node, "pictures", this.root, { minHeight: 380, minWidth: 420 });
    takeDrops(node, element, (dropped) => this.dropped(dropped));
    after(this.folder, "callback", () => this.lookAgain());
    after(this.fallback, "callback", () => this.render());
    after(node, "onConfigure", () => this.read());
    after(node, "onConnectionsChange", () => {
      if (this.isLinked() !== this.wasLinked) this.read();
    });
    this.read();
  }

  lookAgain() {
    this.notice = "";
    this.read();
  }

  isLinked() {
    return isLinked(this.node, "folder");
  }

  /** @returns {Promise<void>} */
  async read() {
    const [turn, { written }] = [++this.reads, this];
    this.wasLinked = this.isLinked();
    const name = this.wasLinked ? "" : String(this.folder?.value ?? "");
    const found = name ? await contents(name).catch((/** @type {Error} */ error) => error) : {};
    if (turn !== this.reads) return;
    // What was told may be older than a caption that was written meanwhile.
    if (written !== this.written) return this.read();
    const isError = found instanceof Error;
    this.told = isError ? {} : found;
    this.failed = isError ? found.message : "";
    this.shown = name;
    this.render();
  }

  /** Why nothing can be added or written now, if so. */
  closed() {
    if (this.isLinked()) return LINKED;
    const long = `${this.failed}. Until it does, nothing is added or written here: press \u21bb to ask it again.`;
    return this.failed ? { short: "The folder could not be read", long } : null;
  }

  render() {
    const closed = this.closed();
    const { pictures = [] } = closed ? {} : this.told;
    this.add.hidden = Boolean(closed);
    this.mask.hidden = !pictures.some((picture) => picture.mask);
    this.say(closed?.short ?? (pictures.length ? this.count() : "No pictures"));
    fill(this.advice, ...this.notes().map((text) => el("li", { class: "bl-note" }, text)));
    this.empty.textContent = closed?.long ?? "Drop pictures or a folder here.";
    if (pictures.length) {
      const fallback = String(this.fallback?.value ?? "");
      this.grid.show(this.shown, pictures, { masks: this.masks, fallback });
    }
    const content = pictures.length ? this.grid.element : this.empty;
    if (this.body.firstChild !== content) fill(this.body, content);
  }

  count() {
    const { pictures = [], others = [], count } = this.told;
    const captioned = [...pictures.map(({ caption }) => caption), ...others.map(({ captioned }) => captioned)];
    const all = count === 1 ? "1 picture" : `${count} pictures`;
    return `${all}, ${captioned.filter(Boolean).length} with a caption`;
  }

  notes() {
    const { pictures = [], others = [], advice = [], skipped = [], problem, count } = this.told;
    const more =
      others.length &&
      `Only the first ${pictures.length} of ${count} pictures are shown. Training reads them all; the captions of the ` +
        "others are written in their files.";
    const left = skipped.length && `Not read: ${skipped.slice(0, 5).join(", ")}`;
    return [this.notice, problem, more, ...advice, left].flatMap((text) => text || []);
  }

  showMasks() {
    this.masks = this.overlay.checked;
    this.render();
  }

  /** @param {string} text */
  say(text) {
    this.status.textContent = text;
  }

  /** @type {import("./grid.js").Write} */
  async caption(folder, picture, text) {
    const inner = picture.name.slice(0, Math.max(picture.name.lastIndexOf("/"), 0));
    try {
      await writeCaption([folder, inner].filter(Boolean).join("/"), picture.caption_file, text);
    } catch (error) {
      const problem = `Not saved: ${/** @type {Error} */ (error).message}`;
      this.say(problem);
      return problem;
    }
    this.written++;
    this.say(`Caption of ${picture.name} saved`);
    return "";
  }

  chosen() {
    const files = [...(this.chooser.files ?? [])];
    this.chooser.value = "";
    this.dropped(files.map((file) => ({ file, folder: "" })));
  }

  /** @param {Dropped[]} dropped */
  dropped(dropped) {
    const closed = this.closed();
    if (closed) return this.say(`${closed.short}: nothing was added`);
    const set = sorted(dropped);
    if (!set.files) return this.say("No pictures among these files");
    const pictures = set.pairs.length;
    const what = pictures === 1 ? "1 picture" : pictures ? `${pictures} pictures` : "captions and masks";
    const current = this.told.count ? String(this.folder.value) : "";
    askName({
      title: `Add ${what}`,
      // A template names a folder that is not there yet.
      name: dropped[0].folder.split("/")[0] || (current ? "" : String(this.folder?.value ?? "")),
      current,
      left: set.left,
      onNamed: (name) => this.upload(name, set),
    });
  }

  /**
   * @param {string} name
   * @param {import("./upload.js").Sorted} set
   */
  async upload(name, set) {
    const before = this.folder.value;
    let sent = 0;
    this.notice = "";
    const progress = (/** @type {number} */ done) => {
      sent = done;
      this.say(`${done} of ${set.files} files sent`);
    };
    const problem = await upload(name, set, progress).catch((/** @type {Error} */ error) => error.message);
    const isLeft = this.folder.value !== before;
    if (sent) {
      this.offer(name);
      if (!isLeft) setValue(this.node, this.folder, name);
    }
    // After the folder: a folder that is chosen takes away what was told of another.
    if (problem) {
      this.notice =
        `${sent} of ${set.files} files were sent to ${name}, the others not. ${problem}. Drop them again: what is there ` +
        "is not sent twice.";
    } else if (isLeft && this.folder.value !== name) {
      this.notice = `${sent} of ${set.files} files were sent to ${name}. Choose that folder to see them.`;
    }
    await this.read();
  }

  /**
   * The list of folders, as the host gave it, does not know a new one yet.
   *
   * @param {string} name
   */
  offer(name) {
    const values = this.folder.options?.values;
    if (Array.isArray(values) && !values.includes(name)) values.push(name);
  }
}

app.registerExtension({
  name: "blocklora.pictures",
  nodeCreated(node) {
    if (node.comfyClass !== "BlockLoRAImages") return;
    useStyles(new URL("../shared/lists.css", import.meta.url));
    useStyles(new URL("pictures.css", import.meta.url));
    new Pictures(/** @type {any} */ (node));
  },
});
