/**
 * The DOM of our widgets: elements whose text is only ever text, one style sheet, and panels that live in a node
 * in both rendering modes. Importing it does nothing.
 */

import { app } from "./host.js";
import { after } from "./widgets.js";

export { isLinked } from "./links.js";
export { after, hide, setValue, standIn } from "./widgets.js";

/**
 * @typedef {import("./host.js").LGraphNode} LGraphNode
 * @typedef {string | Node | null | undefined | false} Child
 * @typedef {object} PanelOptions
 * @property {number} [minHeight] pixels that the panel needs; it grows with the node. Without it, its content decides.
 * @property {number} [most] pixels beyond which its content scrolls; made higher, the node shows more of it.
 * @property {number} [minWidth] pixels below which the node is not made narrower by us, 0 without it.
 * @property {boolean} [last] it stays below panels that come after it.
 * @property {() => string} [getValue] the panel's own value, one serialised string. Without it, it has none.
 * @property {(value: string) => void} [setValue]
 */

const URLS = ["href", "src", "action", "formaction", "poster"];
const FORBIDDEN = /^(on.*|style|srcdoc|innerhtml|outerhtml)$/;

/**
 * An element with attributes, listeners (`on: { click: ... }`) and children. Strings become text, never HTML.
 * `true` sets an attribute without a value; false, null and undefined leave it out.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  const { on = {}, ...rest } = attributes;
  for (const [name, value] of Object.entries(rest)) setAttribute(element, name, value);
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  element.append(...asNodes(children));
  return element;
}

/**
 * Sets or takes away an attribute, as `el` does. TypeError for attributes that hold code, and for URLs of other schemes
 * than http, blob and data:image.
 *
 * @param {Element} element
 * @param {string} name
 * @param {string | number | boolean | null | undefined} value
 */
export function setAttribute(element, name, value) {
  if (FORBIDDEN.test(name.toLowerCase())) throw new TypeError(`${name}: expected an attribute that holds no code.`);
  if (value === false || value === null || value === undefined) return element.removeAttribute(name);
  const text = value === true ? "" : String(value);
  if (URLS.includes(name.toLowerCase()) && !isPlainUrl(text)) {
    throw new TypeError(`${name}: expected an http, blob or data:image URL, got ${text.slice(0, 60)}`);
  }
  element.setAttribute(name, text);
}

/** @param {string} text */
function isPlainUrl(text) {
  const { protocol } = new URL(text, location.href);
  return ["http:", "https:", "blob:"].includes(protocol) || /^data:image\/(png|jpeg|webp);/.test(text);
}

/**
 * @param {(Child | Child[])[]} children
 * @returns {(string | Node)[]}
 */
function asNodes(children) {
  return /** @type {(string | Node)[]} */ (children.flat().filter((one) => one || one === ""));
}

/**
 * Puts other children in place of those an element has.
 *
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...asNodes(children));
}

/**
 * Loads a style sheet once, by its address: `new URL("list.css", import.meta.url)`.
 *
 * @param {URL} url
 */
export function useStyles(url) {
  const known = [...document.querySelectorAll("link[data-blocklora]")];
  if (known.some((link) => link.getAttribute("href") === url.href)) return;
  document.head.append(el("link", { rel: "stylesheet", href: url.href, "data-blocklora": true }));
}

/** Whether nodes are drawn as DOM (Nodes 2.0) and not on the canvas. */
export function isNodes2() {
  return Boolean(/** @type {any} */ (globalThis).LiteGraph?.vueNodesMode);
}

let panels = 0;

/** @type {WeakSet<object>} */
const lasts = new WeakSet();

/** @param {LGraphNode} node */
function keepLast(node) {
  const at = node.widgets?.findIndex((widget) => lasts.has(widget)) ?? -1;
  if (node.widgets && at >= 0) node.widgets.push(...node.widgets.splice(at, 1));
}

/**
 * Adds `content` to a node as its last widget, in classic rendering and in Nodes 2.0. It fits the height of its content,
 * or grows with the node from options.minHeight on. Pointer events and plain keys stay within.
 *
 * It is not saved by position, so that widgets that the pack adds later never get its value: what must be kept belongs
 * into a widget of Python's (see `standIn`) or into node.properties.
 *
 * @param {LGraphNode} node
 * @param {string} name unique in the node
 * @param {HTMLElement} content
 * @param {PanelOptions} [options]
 * @returns {any} the widget; its `element` has the attribute data-panel, unique in the page
 */
export function addPanel(node, name, content, options = {}) {
  useStyles(new URL("style.css", import.meta.url));
  const grows = options.minHeight !== undefined;
  const scrolls = options.most !== undefined;
  const marks = { "data-panel": String(++panels), "data-grows": grows, "data-scrolls": scrolls };
  const root = el("div", { class: "blocklora", ...marks }, content);
  const size = { height: options.minHeight ?? (content.hasChildNodes() ? 40 : 0), known: false };
  const widget = /** @type {any} */ (node).addDOMWidget(name, "blocklora", root, {
    getValue: options.getValue ?? (() => ""),
    setValue: options.setValue ?? (() => {}),
    getMinHeight: () => size.height,
    hideOnZoom: false,
    serialize: false,
    canvasOnly: false,
    // The element has one place: in the panel at the right of the page it would be missing here.
    hideInPanel: true,
    margin: 4,
  });
  widget.serialize = false;
  widget.fixedSize = () => [0, size.height];
  if (options.last) lasts.add(widget);
  else keepLast(node);
  shareRoom(node);
  keepEvents(root);
  setHeight(root, size.height);
  if (!grows) followContent(node, root, content, size, options.most ?? Infinity);
  widen(node, options.minWidth ?? 0);
  resize(node, 0);
  return widget;
}

/** @param {any} widget */
function rank({ element }) {
  return "grows" in element.dataset ? 2 : "scrolls" in element.dataset ? 1 : 0;
}

/**
 * What room a node has left goes to the panels that grow, else to those that scroll, and to others where it has neither.
 *
 * @param {LGraphNode} node
 */
function shareRoom(node) {
  const ours = /** @type {any[]} */ (node.widgets ?? []).filter((widget) => widget.element?.dataset.panel);
  const best = Math.max(...ours.map(rank));
  for (const widget of ours) {
    const expands = rank(widget) === best;
    // Frontend 1.32 asks for the class, newer ones and the classic canvas for the method.
    widget.element.classList.toggle("widget-expands", expands);
    widget.computeSize = expands ? undefined : widget.fixedSize;
    if (expands) delete widget.computeLayoutSize;
    else widget.computeLayoutSize = undefined;
  }
}

/**
 * @param {HTMLElement} root
 * @param {number} height
 */
function setHeight(root, height) {
  root.style.minHeight = `${height}px`;
}

/**
 * @param {LGraphNode} node
 * @param {number} width
 */
function widen(node, width) {
  if (node.size[0] < width) node.setSize([width, node.size[1]]);
}

/**
 * The node gets higher where its content needs it, and lower again where it had no more room than that needed. The first
 * measure only makes it high enough: a saved node has its size.
 *
 * @param {LGraphNode} node
 * @param {HTMLElement} root
 * @param {HTMLElement} content
 * @param {{ height: number, known: boolean }} size
 * @param {number} most
 */
function followContent(node, root, content, size, most) {
  const observer = new ResizeObserver(() => {
    const height = Math.min(Math.ceil(content.offsetHeight), most);
    // Nodes out of sight, collapsed or zoomed away have no height.
    if (!height || height === size.height) return;
    const slack = Math.max(root.offsetHeight - size.height, 0);
    const more =
      height > size.height ? Math.max(height - size.height - slack, 0) : slack > 4 ? 0 : height - size.height;
    size.height = height;
    setHeight(root, height);
    resize(node, size.known ? more : 0);
    size.known = true;
  });
  observer.observe(content);
  after(node, "onRemoved", () => observer.disconnect());
}

/**
 * @param {LGraphNode} node
 * @param {number} more
 */
function resize(node, more) {
  const least = node.computeSize();
  node.setSize([Math.max(node.size[0], least[0]), Math.max(node.size[1] + more, least[1])]);
  node.setDirtyCanvas(true, true);
}

const KEPT = ["pointerdown", "pointermove", "pointerup", "mousedown", "dblclick", "contextmenu"];

/**
 * What happens within stays within, but for the middle button, which pans, and for keys with Ctrl, which are the host's.
 *
 * @param {HTMLElement} root
 */
function keepEvents(root) {
  for (const kind of KEPT) {
    root.addEventListener(kind, (event) => {
      if (/** @type {MouseEvent} */ (event).button !== 1) event.stopPropagation();
    });
  }
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  root.addEventListener("wheel", (event) => {
    if (scrolls(/** @type {Element} */ (event.target), root)) event.stopPropagation();
    else if (!isNodes2()) app.canvas.processMouseWheel(event);
  });
}

const SCROLLING = ["auto", "scroll"];

/**
 * Whether `root`, or something between it and `inner`, scrolls.
 *
 * @param {Element | null} inner
 * @param {Element} root
 */
function scrolls(inner, root) {
  for (let one = inner; one && root.contains(one); one = one.parentElement) {
    if (one.scrollHeight > one.clientHeight + 1 && SCROLLING.includes(getComputedStyle(one).overflowY)) return true;
  }
  return false;
}
