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
  const press = () => fold(!folded);
  const button = el("button", { type: "button", "data-part": "fold", on: { click: press } }, title);
  let folded = false;
  /** @param {boolean} to */
  function fold(to) {
    folded = to;
    const before = node.computeSize()[1];
    for (const widget of widgets) hide(widget, folded && !isLinked(node, widget.name));
    const more = node.computeSize()[1] - before;
    if (more) node.setSize([node.size[0], node.size[1] + more]);
    node.setDirtyCanvas(true, true);
    button.setAttribute("aria-expanded", String(!folded));
  }
  after(node, "onConfigure", () => {
    const changed = widgets.some((widget) => widget.value !== usual.get(widget.name));
    if (changed === folded) fold(!changed);
  });
  fold(true);
  return button;
}
