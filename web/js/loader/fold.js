/** Stock widgets that few need, folded away in both rendering modes. Importing it does nothing. */

import { el } from "../shared/dom.js";
import { isLinked } from "../shared/links.js";
import { after, hide } from "../shared/widgets.js";

/**
 * A button that shows the widgets `names` and hides them again. What a link feeds stays, and so does what has another
 * value than new nodes have, until the button is pressed.
 *
 * @param {import("../shared/host.js").LGraphNode} node
 * @param {string} title
 * @param {string[]} names
 * @returns {HTMLButtonElement}
 */
export function foldButton(node, title, names) {
  /** @type {any[]} */
  const widgets = (node.widgets ?? []).filter((widget) => names.includes(widget.name));
  const usual = new Map(widgets.map((widget) => [widget.name, widget.value]));
  const press = () => {
    const before = node.computeSize()[1];
    fold(!folded);
    grow(node.computeSize()[1] - before);
  };
  const button = el("button", { type: "button", "data-part": "fold", on: { click: press } }, title);
  let folded = false;
  /** @param {boolean} to */
  function fold(to) {
    folded = to;
    for (const widget of widgets) hide(widget, folded && !isLinked(node, widget.name));
    button.setAttribute("aria-expanded", String(!folded));
  }
  /** @param {number} more */
  function grow(more) {
    node.setSize([node.size[0], Math.max(node.size[1] + more, node.computeSize()[1])]);
    node.setDirtyCanvas(true, true);
  }
  after(node, "onConfigure", () => {
    const changed = widgets.some((widget) => widget.value !== usual.get(widget.name));
    if (changed !== folded) return;
    fold(!changed);
    // It was saved as high as it is with them.
    grow(0);
  });
  press();
  return button;
}
