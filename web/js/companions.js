/**
 * Links that go together come together: MODEL, CLIP, VAE and stack of one node into one of ours, and the four outputs of
 * a scene into a sampler. Only where nothing is connected yet, and only one output fits.
 */

import { after } from "./shared/dom.js";
import { app } from "./shared/host.js";

/**
 * @typedef {import("./shared/host.js").LGraphNode} LGraphNode
 */

const INPUT = 1;
/** Input of our nodes -> type of the output that it takes. */
const FROM = { model: "MODEL", clip: "CLIP", vae: "VAE", stack: "BLOCK_LORA_STACK" };
/** Output of a scene -> what samplers call the input that it is for. */
const TO = { MODEL: "model", positive: "positive", negative: "negative", latent: "latent_image" };

/** @param {LGraphNode} node */
function follow(node) {
  let pasted = false;
  // A copy has the links that it was copied with, and no other.
  after(node, "onConfigure", () => {
    pasted = true;
    setTimeout(() => {
      pasted = false;
    });
  });
  after(node, "onConnectionsChange", (side, slot, connected, link) => {
    // A workflow that is opened brings its links itself.
    if (!connected || !link || app.configuringGraph || pasted) return;
    const isInput = side === INPUT;
    if (isInput && !(String(node.inputs[slot]?.name) in FROM)) return;
    if (!isInput && node.comfyClass !== "BlockLoRAScene") return;
    setTimeout(() => {
      const other = node.graph?.getNodeById(isInput ? link.origin_id : link.target_id);
      if (other) (isInput ? fromOne : toOne)(node, other);
    });
  });
}

/**
 * @param {LGraphNode} node
 * @param {LGraphNode} source
 */
function fromOne(node, source) {
  for (const [name, type] of Object.entries(FROM)) {
    const input = node.findInputSlot(name);
    const outputs = source.outputs.filter((output) => output.type === type);
    if (input >= 0 && outputs.length === 1 && !node.isInputConnected(input)) {
      source.connect(source.outputs.indexOf(outputs[0]), node, input);
    }
  }
}

/**
 * @param {LGraphNode} node
 * @param {LGraphNode} target
 */
function toOne(node, target) {
  const inputs = Object.values(TO).map((name) => target.findInputSlot(name));
  if (inputs.includes(-1)) return;
  for (const [at, name] of Object.keys(TO).entries()) {
    if (!target.isInputConnected(inputs[at])) node.connect(node.findOutputSlot(name), target, inputs[at]);
  }
}

app.registerExtension({
  name: "BlockLoRA.Companions",
  nodeCreated(node) {
    if (String(node.comfyClass).startsWith("BlockLoRA")) follow(node);
  },
});
