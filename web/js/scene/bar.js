/** The buttons above a scene's canvas. Importing it does nothing. */

import { el, setAttribute } from "../shared/dom.js";
import { LAST, upload } from "./picture.js";

/**
 * @typedef {import("./model.js").Scene} Scene
 * @typedef {import("./pointer.js").Pointer} Pointer
 * @typedef {object} Action
 * @property {string} label
 * @property {string} tip
 * @property {() => void} run
 * @property {() => boolean} [can] whether it can be pressed now
 * @property {() => boolean} [on] whether it is pressed in
 */

/** Where a box stands that was added without drawing: a third of the canvas, each further to the right. */
const ADDED = { y: 0.1, w: 0.3, h: 0.85 };
const PLACES = [0.1, 0.6, 0.35];

export class Bar {
  #buttons;

  /**
   * @param {Scene} scene
   * @param {Pointer} pointer
   * @param {(problem: string) => void} tell
   */
  constructor(scene, pointer, tell) {
    this.scene = scene;
    this.pointer = pointer;
    this.tell = tell;
    this.file = el("input", { type: "file", accept: "image/*", hidden: true, "aria-label": "Picture to show beneath" });
    this.file.addEventListener("change", () => this.#upload());
    this.#buttons = this.#actions().map((action) => ({ action, button: this.#button(action) }));
    const buttons = this.#buttons.map(({ button }) => button);
    const about = { class: "bl-row bl-scene-bar", role: "toolbar", "aria-label": "Boxes" };
    this.element = el("div", about, buttons, this.file);
    scene.watch(() => this.render());
    this.render();
  }

  /** @returns {Action[]} */
  #actions() {
    const { scene, pointer } = this;
    const one = () => Boolean(scene.current);
    const isRead = () => !scene.problem;
    return [
      { label: "Add box", tip: "Add a box; dragging on the canvas draws one", run: () => this.#add() },
      {
        label: "Lasso",
        tip: "Draw freehand shapes instead of boxes",
        on: () => pointer.tool === "lasso",
        run: () => {
          pointer.tool = pointer.tool === "lasso" ? "box" : "lasso";
          this.render();
        },
      },
      { label: "Copy", tip: "Duplicate the selected box (Ctrl+D)", can: one, run: () => scene.duplicate() },
      { label: "Delete", tip: "Delete the selected box (Delete)", can: one, run: () => scene.remove() },
      { label: "Back", tip: "Behind the box before it ([)", can: () => scene.selected > 0, run: () => scene.shift(-1) },
      {
        label: "Front",
        tip: "In front of the box after it (])",
        can: () => one() && scene.selected < scene.boxes.length - 1,
        run: () => scene.shift(1),
      },
      { label: "Undo", tip: "Undo the last change of the scene", can: () => scene.canUndo, run: () => scene.undo() },
      { label: "Redo", tip: "Redo what was undone", can: () => scene.canRedo, run: () => scene.redo() },
      {
        label: "Last picture",
        tip: "Show the picture of the last run beneath the boxes",
        can: isRead,
        on: () => scene.picture === LAST,
        run: () => scene.edit({ picture: scene.picture === LAST ? "" : LAST }),
      },
      {
        label: "Picture…",
        tip: "Show a picture of yours beneath the boxes; again to take it away",
        can: isRead,
        on: () => Boolean(scene.picture) && scene.picture !== LAST,
        run: () => (scene.picture && scene.picture !== LAST ? scene.edit({ picture: "" }) : this.file.click()),
      },
    ];
  }

  /** @param {Action} action */
  #button({ label, tip, run }) {
    return el("button", { type: "button", title: tip, on: { click: run } }, label);
  }

  render() {
    for (const { action, button } of this.#buttons) {
      button.disabled = action.can ? !action.can() : false;
      if (action.on) setAttribute(button, "aria-pressed", String(action.on()));
    }
  }

  #add() {
    this.pointer.draw({ x: PLACES[this.scene.boxes.length % PLACES.length], ...ADDED });
  }

  async #upload() {
    const [file] = this.file.files ?? [];
    this.file.value = "";
    if (!file) return;
    try {
      this.scene.edit({ picture: await upload(file) });
    } catch (error) {
      this.tell(String(error));
    }
  }
}
