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

/** Of the canvas. A palette that is loaded takes them away again. */
function paint() {
  const canvas = /** @type {any} */ (app.canvas);
  Object.assign(canvas.default_connection_color_byType, COLOURS);
  Object.assign(canvas.constructor.link_type_colors, COLOURS);
  canvas.setDirty(true, true);
}

app.registerExtension({
  name: "blocklora.colours",
  setup() {
    // Of Nodes 2.0: a palette sets or removes these on the element's own style, which goes before ours.
    const lines = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`);
    document.head.append(el("style", {}, `:root { ${lines.join(" ")} }`));
    paint();
    /** @type {any} */ (app).ui.settings.addEventListener("Comfy.ColorPalette.change", () => setTimeout(paint, 200));
  },
});
