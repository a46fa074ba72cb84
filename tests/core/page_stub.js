// A page and a host as far as the modules of web/js need them, for Node: elements, a graph, a server that is played.
// It lies beside the folders `extensions` and `scripts`, as the host serves them.

import { readdirSync } from "node:fs";
import { api } from "./scripts/api.js";
import { app } from "./scripts/app.js";

export { api, app };

/** @param {any} selector */
const matcher = (selector) => {
  const tag = /^\w+/.exec(selector)?.[0].toUpperCase();
  const classes = [...selector.matchAll(/\.([\w-]+)/g)].map(([, name]) => name);
  const marks = [...selector.matchAll(/\[([\w-]+)="?([^"\]]*)"?\]/g)];
  return (one) =>
    (!tag || one.tagName === tag) &&
    classes.every((name) => one.classList.contains(name)) &&
    marks.every(([, name, value]) => one.getAttribute(name) === value);
};

class Element extends EventTarget {
  children = [];
  attributes = {};
  style = { setProperty() {} };
  value = "";
  clientWidth = 400;
  clientHeight = 400;

  constructor(tag) {
    super();
    this.tagName = tag.toUpperCase();
    const own = () => (this.attributes.class ?? "").split(" ").filter(Boolean);
    const set = (names) => this.setAttribute("class", [...names].join(" "));
    this.classList = {
      contains: (name) => own().includes(name),
      add: (name) => set(new Set([...own(), name])),
      remove: (name) => set(own().filter((one) => one !== name)),
      toggle: (name, on = !own().includes(name)) => this.classList[on ? "add" : "remove"](name),
    };
    const key = (name) => `data-${name}`;
    this.dataset = new Proxy(this.attributes, {
      has: (all, name) => key(name) in all,
      get: (all, name) => all[key(name)],
    });
  }

  setAttribute(name, value) {
    this.attributes[name] = value;
    if (["hidden", "disabled", "checked"].includes(name)) this[name] = true;
    if (["value", "type", "id"].includes(name)) this[name] = value;
  }

  getAttribute = (name) => this.attributes[name] ?? null;
  removeAttribute = (name) => delete this.attributes[name];
  toggleAttribute = (name, on) => (on ? this.setAttribute(name, "") : this.removeAttribute(name));
  hasChildNodes = () => this.children.length > 0;
  append = (...more) => {
    for (const one of more) if (one instanceof Element) one.remove();
    this.children.push(...more);
    for (const one of more) if (one instanceof Element) one.parentNode = this;
  };
  appendChild = (one) => (this.append(one), one);
  replaceChildren = (...more) => {
    this.children = [];
    this.append(...more);
  };
  remove() {
    const held = this.parentNode?.children ?? [];
    if (held.includes(this)) held.splice(held.indexOf(this), 1);
    this.parentNode = null;
  }
  get options() {
    return this.children;
  }
  get lastChild() {
    return this.children.at(-1);
  }
  get textContent() {
    return this.children.map((one) => one.textContent ?? one).join("");
  }
  set textContent(text) {
    this.children = [text];
  }
  get valueAsNumber() {
    return Number(this.value || Number.NaN);
  }
  below = () => this.children.filter((one) => one instanceof Element).flatMap((one) => [one, ...one.below()]);
  querySelectorAll = (selector) =>
    selector.startsWith(":scope") ? [] : this.below().filter((one) => selector.split(", ").some((s) => matcher(s)(one)));
  querySelector = (selector) => this.querySelectorAll(selector)[0] ?? null;
  focus = () => {
    document.activeElement = this;
  };
  click = () => this.fire("click");
  fire = (name, more = {}) => this.dispatchEvent(Object.assign(new Event(name, { cancelable: true }), more));
  scrollIntoView() {}
  select() {}
  showModal() {}
  close = () => this.fire("close");
}

const here = new URL("./extensions/", import.meta.url);
const styles = readdirSync(here, { recursive: true }).filter((path) => path.endsWith(".css"));
const links = styles.map((path) => ({ getAttribute: () => new URL(path, here).href }));
const body = new Element("body");
globalThis.document = Object.assign(new EventTarget(), {
  body,
  head: new Element("head"),
  createElement: (tag) => new Element(tag),
  createElementNS: (_, tag) => new Element(tag),
  // All style sheets are there already.
  querySelectorAll: (selector) => (selector.startsWith("link") ? links : body.querySelectorAll(selector)),
  querySelector: (selector) => body.querySelector(selector),
});
Object.assign(globalThis, {
  window: globalThis,
  location: { href: "http://host/" },
  HTMLElement: Element,
  ResizeObserver: class {
    observe() {}
    disconnect() {}
  },
});

export const wait = (milliseconds = 0) => new Promise((done) => setTimeout(done, milliseconds));
export const say = (name, detail = {}, target = api) => target.dispatchEvent(Object.assign(new Event(name), { detail }));

/** As LiteGraph's: cleared, it tells its own nodes alone, and leaves them their graph. */
export class Graph {
  nodes = [];
  subgraphs = new Map();

  constructor(id, root) {
    this.id = id;
    this.rootGraph = root ?? this;
    root?.subgraphs.set(id, this);
  }

  getNodeById = (id) => this.nodes.find((node) => node.id === id) ?? null;
  change() {}
  add(node) {
    node.graph = this;
    node.id ??= this.nodes.length + 1;
    this.nodes.push(node);
    node.onAdded?.(this);
    return node;
  }
  clear() {
    for (const node of this.nodes) node.onRemoved?.();
    this.nodes = [];
    this.subgraphs.clear();
  }
}

export class Node {
  graph = null;
  size = [400, 300];
  properties = {};
  outputs = [];

  /** Its inputs are linked to nothing, but for those of `links`: name -> the node that it comes from. */
  constructor(type, widgets = {}, links = {}) {
    Object.assign(this, { type, comfyClass: type, title: type, links });
    this.widgets = Object.entries(widgets).map(([name, value]) => ({ name, value, options: {}, callback() {} }));
    this.inputs = [...new Set([...Object.keys(widgets), ...Object.keys(links)])].map((name) => ({ name }));
    for (const { nodeCreated } of app.extensions) nodeCreated?.(this);
  }

  addDOMWidget(name, _, element, options) {
    const widget = { name, element, options, value: "" };
    this.widgets.push(widget);
    return widget;
  }
  panel = (name) => this.widgets.find((one) => one.name === name).element;
  widget = (name) => this.widgets.find((one) => one.name === name);
  computeSize = () => [300, this.widgets.reduce((high, one) => high + (one.computeSize?.()[1] ?? 20) + 4, 30)];
  setSize = (size) => {
    this.size = [...size];
  };
  setDirtyCanvas() {}
  findInputSlot = (name) => this.inputs.findIndex((one) => one.name === name);
  isInputConnected = (slot) => this.inputs[slot]?.name in this.links;
  getInputLink(slot) {
    return { origin_id: this.links[this.inputs[slot].name].id, origin_slot: 0 };
  }
  getOutputNodes = () => [];
}
globalThis.LiteGraph = { LGraphNode: Node, uuidv4: () => "an id" };
