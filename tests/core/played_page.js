// As much of a page as the panel of pictures asks for, and of its host. A test puts FOLDERS in, and goes on after it.

class Element extends EventTarget {
  constructor(tag) {
    super();
    Object.assign(this, { tag, children: [], attributes: {}, style: {}, dataset: {}, parentNode: null, held: "" });
    this.classList = { add() {}, remove() {}, toggle() {} };
  }
  get value() { return this.held; }
  set value(text) { this.held = text.replace(/\r\n?/g, "\n"); this.valuesGiven = (this.valuesGiven ?? 0) + 1; }
  setAttribute(name, value) {
    this.attributes[name] = value;
    if (["hidden", "checked"].includes(name)) this[name] = true;
    if (name === "value") this.value = value;
  }
  removeAttribute(name) { delete this.attributes[name]; }
  get firstChild() { return this.children[0]; }
  get textContent() { return this.children.map((one) => one.textContent ?? one).join(" "); }
  set textContent(text) { this.replaceChildren(text); }
  replaceChildren(...nodes) { [...this.children].forEach((one) => one.remove?.()); this.children = []; this.append(...nodes); }
  append(...nodes) { for (const one of nodes) this.insertBefore(one, null); }
  insertBefore(node, next) {
    node.remove?.();
    this.children.splice(next ? this.children.indexOf(next) : this.children.length, 0, node);
    if (node instanceof Element) node.parentNode = this;
  }
  remove() {
    if (this.parentNode) this.parentNode.children.splice(this.parentNode.children.indexOf(this), 1);
    this.parentNode = null;
    if (this.all().includes(document.activeElement)) document.activeElement = null;
  }
  all() { return [this, ...this.children.flatMap((one) => one.all?.() ?? [])]; }
  querySelectorAll(tag) { return this.all().filter((one) => one.tag === tag); }
  closest(tag) { return this.tag === tag ? this : this.parentNode?.closest(tag); }
  focus() { document.activeElement?.blur(); document.activeElement = this; }
  blur() {
    if (document.activeElement !== this) return;
    document.activeElement = null;
    this.dispatchEvent(new Event("blur"));
  }
  select() {}
  showModal() {}
  close() { this.dispatchEvent(new Event("close")); }
}
const document = { createElement: (tag) => new Element(tag), querySelectorAll: () => [], activeElement: null };
Object.assign(document, { body: new Element("body"), head: new Element("head") });
// A page has its style sheets from where its modules are.
const served = class extends URL {
  constructor(path, base) { super(path, base?.replace(/^file:/, "http:")); }
};
Object.assign(globalThis, { document, URL: served, location: { href: "http://page/" } });
process.on("unhandledRejection", (error) => { throw error; });

function picture(name, caption = "") {
  const told = { width: 8, height: 8, mask: "", repeats: 1, words: "", changed: 1, problem: "" };
  return { name, caption, caption_file: name.replace(/\.\w+$/, ".txt"), ...told };
}
function holding(...pictures) {
  return { pictures, others: [], count: pictures.length };
}

const folders = FOLDERS;
const sent = [];
let [reading, writing, slow] = [200, 200, 0];
const wait = (time = 5) => new Promise((resolve) => setTimeout(resolve, time));
globalThis.host = async (url, { body } = {}) => {
  const folder = new URL(url, "http://host").searchParams.get("folder");
  if (url.startsWith("/blocklora")) {
    if (reading === 0) throw new TypeError("Failed to fetch");
    const told = JSON.stringify({ skipped: [], advice: [], ...(folders[folder] ?? { problem: `no ${folder}` }) });
    return new Response(told, { status: reading, statusText: "Broken" });
  }
  const [file, into] = [body.get("image"), body.get("subfolder")];
  await wait(slow);
  const status = typeof writing === "function" ? writing(file.name) : writing;
  if (status === 200) sent.push(`${into}/${file.name}: ${await file.text()}`);
  return new Response(JSON.stringify({ name: file.name }), { status, statusText: "Disk full" });
};
let made;
globalThis.extended = ({ nodeCreated }) => { made = nodeCreated; };
await import("./extensions/blocklora/js/pictures/pictures.js");
async function panel(folder) {
  const widgets = [["folder", folder], ["default_caption", ""]].map(([name, value]) => ({ name, value, options: {} }));
  widgets[0].options.values = Object.keys(folders);
  const node = {
    comfyClass: "BlockLoRAImages", widgets, size: [9, 9], linked: false,
    addDOMWidget: (name, _, element) => { document.body.append(element); widgets.push({ name, element }); return widgets.at(-1); },
    computeSize: () => [9, 9], setSize() {}, setDirtyCanvas() {},
    findInputSlot: (name) => (name === "folder" ? 0 : -1), isInputConnected() { return this.linked; },
  };
  made(node);
  await wait();
  const root = widgets[2].element;
  return {
    node, folder: widgets[0], fallback: widgets[1],
    fields: () => root.querySelectorAll("textarea"),
    status: () => root.all().find(({ attributes }) => attributes.role === "status").textContent,
    text: () => root.textContent,
    button: (text) => root.querySelectorAll("button").find((one) => one.textContent === text),
    choose: async (name) => { widgets[0].value = name; widgets[0].callback(); await wait(); },
    drop: async (...names) => {
      const files = names.map((name) => new File([`new ${name}`], name));
      node.onDragDrop({ dataTransfer: { types: ["Files"], items: [], files } });
      await wait();
    },
  };
}
const press = (element) => element.dispatchEvent(new Event("click"));
function type(field, text) { field.focus(); field.held = text; }
async function leave(field) { field.dispatchEvent(new Event("change")); field.blur(); await wait(); }
async function answer(name) {
  const dialog = document.body.querySelectorAll("dialog").at(-1);
  dialog.querySelectorAll("input")[0].value = name;
  dialog.querySelectorAll("form")[0].dispatchEvent(new Event("submit"));
  await wait();
}
