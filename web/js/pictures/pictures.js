/** BlockLoRA Images: drop pictures, name their folder, write captions. What is on the disk stays the truth. */

import { openDialog } from "../shared/dialog.js";
import { addPanel, el, fill, useStyles } from "../shared/dom.js";
import { takeDrops } from "../shared/drops.js";
import { ask } from "../shared/events.js";
import { app } from "../shared/host.js";
import { after, setValue } from "../shared/widgets.js";
import { grid } from "./grid.js";
import { folderName, sorted, upload, writeCaption } from "./upload.js";

/**
 * @typedef {import("../shared/drops.js").Dropped} Dropped
 * @typedef {import("./grid.js").Picture} Picture
 * @typedef {{ pictures: Picture[], count: number, skipped: string[], advice: string[], problem?: string }} Told
 */

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
  body = el("div", { class: "bl-scroll bl-grow" });
  root = el("div", { class: "bl-column bl-images" });

  /** @type {Told | null} */
  told = null;

  /** The folder that was told of: another may be chosen already, whose captions are not these. */
  shown = "";

  masks = true;

  /** @param {import("../shared/host.js").LGraphNode} node */
  constructor(node) {
    this.node = node;
    /** @type {any} */
    this.folder = node.widgets?.find((one) => one.name === "folder");
    /** @type {any} */
    this.fallback = node.widgets?.find((one) => one.name === "default_caption");
    const again = "Look into the folder again";
    const buttons = [
      el("button", { type: "button", title: again, "aria-label": again, on: { click: () => this.read() } }, "\u21bb"),
      el("button", { type: "button", on: { click: () => this.chooser.click() } }, "+ Add pictures"),
    ];
    const head = el("div", { class: "bl-row" }, this.status, this.mask, ...buttons, this.chooser);
    fill(this.root, head, this.advice, this.body);
    const { element } = addPanel(node, "pictures", this.root, { minHeight: 380, minWidth: 420 });
    takeDrops(node, element, (dropped) => this.dropped(dropped));
    after(this.folder, "callback", () => this.read());
    after(this.fallback, "callback", () => this.render());
    after(node, "onConfigure", () => this.read());
    this.read();
  }

  async read() {
    const name = String(this.folder?.value ?? "");
    const told = name ? await ask(`/blocklora/pictures?${new URLSearchParams({ folder: name })}`) : null;
    if (name !== String(this.folder?.value ?? "")) return;
    this.told = told;
    this.shown = name;
    this.render();
  }

  render() {
    const { told } = this;
    const pictures = told?.pictures ?? [];
    const { advice = [], skipped = [], problem } = told ?? {};
    const captioned = pictures.filter((picture) => picture.caption).length;
    const shown = told?.count === 1 ? "1 picture" : `${told?.count} pictures`;
    this.say(pictures.length ? `${shown}, ${captioned} with a caption` : "No pictures");
    this.mask.hidden = !pictures.some((picture) => picture.mask);
    const left = skipped.length ? [`Not read: ${skipped.slice(0, 5).join(", ")}`] : [];
    const notes = [problem ?? [], advice, left].flat();
    fill(this.advice, ...notes.map((text) => el("li", { class: "bl-note" }, text)));
    fill(
      this.body,
      pictures.length ? this.grid(pictures) : el("p", { class: "bl-empty bl-dim" }, "Drop pictures or a folder here."),
    );
  }

  /** @param {Picture[]} pictures */
  grid(pictures) {
    const folder = this.shown;
    return grid(folder, pictures, {
      masks: this.masks,
      fallback: String(this.fallback?.value ?? ""),
      onCaption: (picture, text) => this.caption(folder, picture, text),
    });
  }

  showMasks() {
    this.masks = this.overlay.checked;
    this.render();
  }

  /** @param {string} text */
  say(text) {
    this.status.textContent = text;
  }

  /**
   * @param {string} folder
   * @param {Picture} picture
   * @param {string} text
   */
  async caption(folder, picture, text) {
    const inner = picture.name.slice(0, Math.max(picture.name.lastIndexOf("/"), 0));
    try {
      await writeCaption([folder, inner].filter(Boolean).join("/"), picture.caption_file, text);
      this.say(`Caption of ${picture.name} saved`);
    } catch (error) {
      this.say(`Not saved: ${error instanceof Error ? error.message : error}`);
    }
  }

  chosen() {
    const files = [...(this.chooser.files ?? [])];
    this.chooser.value = "";
    this.dropped(files.map((file) => ({ file, folder: "" })));
  }

  /** @param {Dropped[]} dropped */
  dropped(dropped) {
    const set = sorted(dropped);
    if (!set.files) return this.say("No pictures among these files");
    const pictures = set.pairs.length;
    const what = pictures === 1 ? "1 picture" : pictures ? `${pictures} pictures` : "captions and masks";
    const current = this.told?.count ? String(this.folder.value) : "";
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
    try {
      await upload(name, set, (done) => this.say(`${done} of ${set.files} files sent`));
    } catch (error) {
      return this.say(`Not all were sent: ${error instanceof Error ? error.message : error}`);
    }
    this.offer(name);
    setValue(this.node, this.folder, name);
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

/**
 * Asks where the pictures go: a new folder, or the one that is shown.
 *
 * @param {{ title: string, name: string, current: string, left: string[], onNamed: (name: string) => void }} options
 */
function askName({ title, name, current, left, onNamed }) {
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

app.registerExtension({
  name: "blocklora.pictures",
  nodeCreated(node) {
    if (node.comfyClass !== "BlockLoRAImages") return;
    useStyles(new URL("../shared/lists.css", import.meta.url));
    useStyles(new URL("pictures.css", import.meta.url));
    new Pictures(/** @type {any} */ (node));
  },
});
