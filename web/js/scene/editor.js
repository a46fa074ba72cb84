/** All of a scene's editor, in the panel of its node. Importing it does nothing. */

import { el, fill } from "../shared/dom.js";
import { lookAhead } from "./ahead.js";
import { Bar } from "./bar.js";
import { Form } from "./form.js";
import { watchKeys } from "./keys.js";
import { Scene } from "./model.js";
import { address, LAST, lastPicture } from "./picture.js";
import { Pointer } from "./pointer.js";
import { Stage } from "./stage.js";

/**
 * @typedef {import("../shared/host.js").LGraphNode} LGraphNode
 * @typedef {import("./stage.js").Outline} Outline
 */

const UNCHECKED =
  "The boxes are not checked: expected an answer of the server, got none. It is asked again when something changes.";
const SILENT =
  "The last picture is not shown: expected an answer of the server, got none. Press Last picture twice to ask again.";

/** Milliseconds after the last change, before the server is asked. */
const WAIT = 250;

export class Editor {
  /** @type {import("./ahead.js").Ahead} */
  #ahead = { names: [], problems: {}, problem: "" };
  #timer = 0;
  #asked = 0;
  /** What stands beneath the boxes, and how often that has changed. */
  #shown = "";
  #shows = 0;
  /** Instead of what is wrong with the scene, until it changes. */
  #told = "";

  /**
   * @param {LGraphNode} node
   * @param {(text: string) => void} write keeps the scene's text
   */
  constructor(node, write) {
    this.node = node;
    this.scene = new Scene(write);
    const problem = (/** @type {number} */ number) => this.#ahead.problems[number + 1] ?? "";
    this.form = new Form(this.scene, { names: () => this.#ahead.names, problem });
    this.stage = new Stage(this.scene, problem, this.form.hintId);
    this.pointer = new Pointer(this.stage, (drawn) => this.#draw(drawn));
    this.alert = el("div", { class: "bl-scene-problem", role: "alert", hidden: true });
    this.bar = new Bar(this.scene, this.pointer, (told) => this.#tell(told));
    const body = el("div", { class: "bl-scene-body" }, this.stage.element, this.form.element);
    this.element = el("div", { class: "bl-scene" }, this.bar.element, this.alert, body);
    watchKeys(this.stage);
    this.scene.watch(() => this.#changed());
  }

  dispose() {
    clearTimeout(this.#timer);
    this.stage.dispose();
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  shape(width, height) {
    this.stage.aspect = width > 0 && height > 0 ? width / height : 1;
    this.stage.fit();
  }

  /** Asks the server anew, a moment from now: a node before this one may have changed. */
  check() {
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#look(), WAIT);
  }

  /** @param {string} picture the one that was made last; empty for none */
  made(picture) {
    if (picture && this.scene.picture === LAST) this.#show(address(picture));
  }

  /** @param {Outline} drawn gets the first concept that no box has yet */
  #draw(drawn) {
    const taken = this.scene.boxes.map(({ concept }) => concept.toLowerCase());
    const concept = this.#ahead.names.find((name) => !taken.includes(name.toLowerCase())) ?? "";
    this.scene.add({ ...drawn, concept });
    this.stage.focus(this.scene.selected);
  }

  #changed() {
    this.check();
    this.#tell("");
    const { picture } = this.scene;
    if (picture === this.#shown) return;
    this.#shown = picture;
    this.#show(picture && picture !== LAST ? address(picture) : "");
    if (picture === LAST) this.#showLast();
  }

  /** Unless a newer one was made meanwhile, or another chosen. */
  async #showLast() {
    const shows = this.#shows;
    const found = await lastPicture().catch(() => null);
    if (shows !== this.#shows) return;
    if (found === null) this.#tell(SILENT);
    else this.made(found);
  }

  /** @param {string} url of the picture beneath; empty for none */
  #show(url) {
    this.#shows += 1;
    const { under } = this.stage;
    under.hidden = !url;
    if (url) under.src = url;
    else under.removeAttribute("src");
  }

  async #look() {
    this.#asked += 1;
    const asked = this.#asked;
    const ahead = await lookAhead(this.node);
    if (asked !== this.#asked) return;
    // What was known stays: who is in the merge, and what is wrong with which box.
    this.#ahead = ahead ?? { ...this.#ahead, problem: UNCHECKED };
    this.form.render();
    this.stage.render();
    this.#tell(this.#told);
  }

  /** @param {string} told instead of what is wrong with the scene */
  #tell(told) {
    this.#told = told;
    const text = told || this.scene.problem || this.#ahead.problem;
    this.alert.hidden = !text;
    fill(this.alert, text);
  }
}
