/** The colours of our sockets and links, in both rendering modes and under every palette. */

import { el } from "./shared/dom.js";
import { app } from "./shared/host.js";

/** @type {Record<string, string>} */
const COLOURS = {
  BLOCK_LORA_STACK: "#e0705a",
  BLOCK_LORA_TRAIN_SETTINGS: "#d9a35c",
  BLOCKLORA_REGIONS: "#4fb286",
  BLOCKLORA_COMPOSER_OPTIONS: "#8fc3a8",
  BLOCKLORA_REFERENCES: "#8a86d6",
};

/** Of the canvas. A palette empties these tables as it is loaded, which is after this: what cannot be set stays. */
function paint() {
  const canvas = /** @type {any} */ (app.canvas);
  for (const table of [canvas.default_connection_color_byType, canvas.constructor.link_type_colors]) {
    for (const [type, colour] of Object.entries(COLOURS)) {
      Object.defineProperty(table, type, { get: () => colour, set() {}, enumerable: true, configurable: true });
    }
  }
}

app.registerExtension({
  name: "blocklora.colours",
  setup() {
    // Of Nodes 2.0: a palette sets or removes these on the element's own style, which goes before ours.
    const lines = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`);
    document.head.append(el("style", {}, `:root { ${lines.join(" ")} }`));
    paint();
  },
});
