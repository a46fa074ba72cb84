/**
 * The panel of BlockLoRA Train: the fields that matter first, Start, and the training as it goes. What it shows of a run it
 * asks the server for, so that a reload, a second tab or a lost connection lose nothing.
 */

import { addPanel, after, el, fill } from "./shared/dom.js";
import { ask, listen, listenFor, send } from "./shared/events.js";
import { api, app } from "./shared/host.js";
import { isLinked, sourceOf, targetsOf } from "./shared/links.js";
import { isAlive, isRunOf, placeOf, rememberOpened } from "./shared/place.js";
import { trainForm } from "./train/form.js";
import { liveView } from "./train/live.js";

/**
 * @typedef {import("./shared/host.js").LGraphNode} LGraphNode
 * @typedef {import("./train/live.js").RunState} RunState
 */

const TRAIN = "BlockLoRATrain";
const IMAGES = "BlockLoRAImages";
const PANEL = "blocklora_train";
const NEEDED = ["model", "clip", "vae", "images", "captions"];
const FROM_IMAGES = ["images", "captions", "masks"];
const ASKED_EVERY = 1000;
const WIDTH = 340;
const PICTURES_WIDTH = 480;
const GAP = 60;
const UNSURE =
  "This subgraph stands in the workflow more than once, and the page cannot tell which one is meant. Nothing was queued: " +
  "go back to the workflow, open the subgraph from its node, and press Start again.";

// A page without this node hears of runs, too, and the host takes a message that nobody listens to for an error.
listen("blocklora.run", () => {});
listen("subgraph-opened", rememberOpened, document);

app.registerExtension({
  name: "blocklora.train",
  nodeCreated(node) {
    if (/** @type {any} */ (node.constructor).comfyClass === TRAIN) new TrainPanel(/** @type {any} */ (node));
  },
});

class TrainPanel {
  /** @param {LGraphNode} node */
  constructor(node) {
    this.node = node;
    this.pictures = el("div", { class: "bl-field" });
    this.startButton = el("button", { type: "button", class: "bl-main", on: { click: () => this.start() } }, "Start");
    this.live = liveView({
      stop: () => this.act("stop"),
      cancel: () => api.interrupt(null),
      resume: () => this.act("resume").then(() => this.start()),
      use: () => this.act("use").then(() => app.queuePrompt(0, 1)),
    });
    this.form = trainForm(node, this.pictures, this.startButton);
    this.unsure = el("p", { class: "bl-note", role: "alert", hidden: true }, UNSURE);
    const content = el("div", { class: "bl-column bl-train" }, this.form.element, this.unsure, this.live.element);
    addPanel(node, PANEL, content, { minWidth: WIDTH });
    // It was made as high as all stock widgets; a saved node gets its own size after this.
    node.setSize([node.size[0], node.computeSize()[1]]);
    /** @type {RunState | null} */
    this.run = null;
    this.asking = false;
    this.listen();
    this.refresh();
  }

  listen() {
    listenFor(this.node, "blocklora.run", (run) => isRunOf(run, this.node) && this.update());
    listenFor(this.node, "reconnected", () => this.update());
    listenFor(this.node, "subgraph-opened", () => this.update(), document);
    after(this.node, "onRemoved", () => clearTimeout(this.timer));
    after(this.node, "onAdded", () => this.refresh());
    after(this.node, "onConfigure", () => this.refresh());
    after(this.node, "onConnectionsChange", () => this.refresh());
  }

  /** The form, and the run, which is another one when the node has come from another workflow. */
  refresh() {
    // A link is there, and the node has its id, once the host has done with what it is doing.
    setTimeout(() => {
      this.form.refresh();
      this.showPictures();
      this.update();
    });
  }

  /** Asks for the run's state, once at a time, and again while it runs. */
  async update() {
    if (this.asking || !isAlive(this.node)) return;
    this.asking = true;
    clearTimeout(this.timer);
    const place = placeOf(this.node);
    const asked = String(new URLSearchParams(place));
    try {
      const run = place.node ? await ask(`/blocklora/run?${asked}`) : null;
      if (this.stands(asked)) this.show(run);
    } catch {
      // The server is away; the host says so, and tells us when it is back.
    } finally {
      this.asking = false;
    }
    if (!this.stands(asked)) this.update();
    else if (this.run?.running) this.timer = setTimeout(() => this.update(), ASKED_EVERY);
  }

  /** @param {string} asked whether the node still stands where it was asked for */
  stands(asked) {
    return String(new URLSearchParams(placeOf(this.node))) === asked && isAlive(this.node);
  }

  /** @param {RunState | null} run */
  show(run) {
    this.run = run;
    this.live.show(run);
    this.startButton.disabled = Boolean(run?.running) || this.missing().length > 0;
    if (placeOf(this.node).node) this.unsure.hidden = true;
  }

  /** @param {string} action */
  async act(action) {
    if (this.run) await send(`/blocklora/run/${this.run.id}/${action}`);
    await this.update();
  }

  /** Queues this node, and what saves its result: the outputs that hang right on it. */
  async start() {
    const outputs = [this.node, ...this.outputsBehind()].map((node) => placeOf(node).node);
    this.unsure.hidden = !outputs.includes("");
    if (this.unsure.hidden) await app.queuePrompt(0, 1, outputs);
  }

  /** @returns {LGraphNode[]} */
  outputsBehind() {
    return [...new Set(targetsOf(this.node))].filter((node) => node?.constructor.nodeData?.output_node);
  }

  /** @returns {string[]} */
  missing() {
    return NEEDED.filter((name) => !isLinked(this.node, name));
  }

  showPictures() {
    const missing = this.missing();
    this.startButton.title = missing.length ? `Connect first: ${missing.join(", ")}` : "Queue this node";
    this.startButton.disabled = missing.length > 0 || Boolean(this.run?.running);
    fill(this.pictures, el("span", {}, "pictures"), missing.includes("images") ? this.offer() : this.source());
  }

  offer() {
    return el("button", { type: "button", on: { click: () => this.addImages() } }, "Add a node for pictures");
  }

  source() {
    const from = sourceOf(this.node, this.node.findInputSlot("images"))?.node;
    return el("span", { class: "bl-dim" }, from ? `from \u201c${from.title}\u201d` : "connected");
  }

  addImages() {
    const graph = /** @type {any} */ (this.node.graph);
    const images = /** @type {any} */ (globalThis).LiteGraph.createNode(IMAGES);
    const width = Math.max(images.size[0], PICTURES_WIDTH);
    images.pos = [this.node.pos[0] - width - GAP, this.node.pos[1]];
    graph.add(images);
    for (const name of FROM_IMAGES)
      images.connect(images.findOutputSlot(name), this.node, this.node.findInputSlot(name));
    app.canvas.selectNode(images);
  }
}
