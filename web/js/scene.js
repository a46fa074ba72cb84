/** BlockLoRA Scene: a canvas in place of the text of its boxes. */

import { Editor } from "./scene/editor.js";
import { pictureIn } from "./scene/picture.js";
import { addPanel, after, standIn, useStyles } from "./shared/dom.js";
import { listenFor } from "./shared/events.js";
import { app } from "./shared/host.js";
import { isLinked, numberBehind } from "./shared/links.js";

/**
 * @typedef {import("./shared/host.js").LGraphNode} LGraphNode
 */

const SIZE = { minHeight: 380, minWidth: 640 };

/** @param {LGraphNode} node */
function build(node) {
  useStyles(new URL("scene/scene.css", import.meta.url));
  const value = standIn(node, "scene", (text) => editor.scene.read(text));
  const editor = new Editor(node, (text) => value.set(text));
  addPanel(node, "canvas", editor.element, SIZE);
  followShape(node, editor);
  listenFor(node, "executed", ({ output }) => editor.made(pictureIn(output)));
  listenFor(node, "graphChanged", () => editor.check());
  after(node, "onConnectionsChange", () => editor.check());
  after(node, "onRemoved", () => editor.dispose());
  editor.scene.read(value.get());
}

/**
 * The canvas takes the shape of the picture; where a link brings what nobody can know yet, it keeps the one it has.
 *
 * @param {LGraphNode} node
 * @param {Editor} editor
 */
function followShape(node, editor) {
  const sides = ["width", "height"].map((name) => node.widgets?.find((widget) => widget.name === name));
  /** @type {number[]} */
  let known = [];
  const shape = () => {
    known = sides.map((side, at) => {
      const linked = side && isLinked(node, side.name);
      return (linked ? (numberBehind(node, side.name) ?? known[at]) : undefined) ?? Number(side?.value);
    });
    editor.shape(known[0], known[1]);
  };
  // Links are there, and the nodes before this one have their values, once the host has done with what it is doing.
  const soon = () => setTimeout(shape);
  for (const side of sides) if (side) after(side, "callback", shape);
  after(node, "onConfigure", () => {
    known = [];
    shape();
    soon();
  });
  after(node, "onConnectionsChange", soon);
  listenFor(node, "graphChanged", shape);
  shape();
}

app.registerExtension({
  name: "BlockLoRA.Scene",
  nodeCreated(node) {
    if (node.comfyClass === "BlockLoRAScene") build(node);
  },
});
