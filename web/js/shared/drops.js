/** Files from the desktop, dropped on a node. Importing it does nothing. */

import { app } from "./host.js";

/**
 * @typedef {{ file: File, folder: string }} Dropped folder: the dropped folder that held the file, "" for none
 */

/**
 * Takes what is dropped on a node or its panel, in both rendering modes.
 *
 * @param {import("./host.js").LGraphNode} node
 * @param {HTMLElement} element
 * @param {(files: Dropped[]) => void} take
 */
export function takeDrops(node, element, take) {
  element.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    element.classList.add("bl-drop");
  });
  element.addEventListener("dragleave", () => element.classList.remove("bl-drop"));
  element.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    element.classList.remove("bl-drop");
    filesOf(event).then(take, refused);
  });
  const target = /** @type {any} */ (node);
  target.onDragOver = holdsFiles;
  target.onDragDrop = (/** @type {DragEvent} */ event) => {
    if (!holdsFiles(event)) return false;
    filesOf(event).then(take, refused);
    return true;
  };
}

/** @param {any} error */
function refused(error) {
  const detail = `${error?.message ?? error} Nothing was taken: drop them again.`;
  const { toast } = /** @type {any} */ (app.extensionManager);
  toast.add({ severity: "error", summary: "The dropped files could not be read", detail });
}

/** @param {DragEvent} event */
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files") ?? false;

/**
 * The files, those of dropped folders too, in the order of their names.
 *
 * @param {DragEvent} event
 * @returns {Promise<Dropped[]>}
 */
async function filesOf(event) {
  // Both are gone once this event is over.
  const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.() ?? null);
  const files = [...(event.dataTransfer?.files ?? [])];
  const found = entries.some((entry) => entry?.isDirectory)
    ? (await Promise.all(entries.map((entry) => filesBelow(entry, "")))).flat()
    : files.map((file) => ({ file, folder: "" }));
  return found.sort((one, other) => (one.file.name < other.file.name ? -1 : 1));
}

/**
 * @param {FileSystemEntry | null} entry
 * @param {string} folder
 * @returns {Promise<Dropped[]>}
 */
async function filesBelow(entry, folder) {
  if (entry?.isFile) {
    const file = await new Promise((resolve, reject) =>
      /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject),
    );
    return [{ file, folder }];
  }
  if (!entry?.isDirectory) return [];
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const inner = [];
  for (;;) {
    // A reader gives at most a hundred at a time.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    inner.push(...some);
  }
  const path = folder ? `${folder}/${entry.name}` : entry.name;
  return (await Promise.all(inner.map((one) => filesBelow(one, path)))).flat();
}
