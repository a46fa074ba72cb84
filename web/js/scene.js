/** BlockLoRA Scene: a canvas in place of the text of its boxes. */

import { Editor } from "./scene/editor.js";
import { pictureIn } from "./scene/picture.js";
import { addPanel, after, standIn, useStyles } from "./shared/dom.js";
import { listen } from "./shared/events.js";
import { app } from "./shared/host.js";

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
  const ends = [
    listen("executed", ({ output }) => editor.made(pictureIn(output))),
    listen("graphChanged", () => editor.check()),
  ];
  after(node, "onConnectionsChange", () => editor.check());
  after(node, "onRemoved", () => {
    editor.dispose();
    for (const end of ends) end();
  });
  editor.scene.read(value.get());
}

/**
 * The canvas takes the shape of the picture.
 *
 * @param {LGraphNode} node
 * @param {Editor} editor
 */
function followShape(node, editor) {
  const sides = ["width", "height"].map((name) => node.widgets?.find((widget) => widget.name === name));
  const shape = () => editor.shape(Number(sides[0]?.value), Number(sides[1]?.value));
  for (const side of sides) if (side) after(side, "callback", shape);
  after(node, "onConfigure", shape);
  shape();
}

app.registerExtension({
  name: "BlockLoRA.Scene",
  nodeCreated(node) {
    if (node.comfyClass === "BlockLoRAScene") build(node);
  },
});
