"""The page's modules under Node, with a page and a host that are played: tests/core/page_stub.js."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.core.javascript import printed, serve

STUB = Path(__file__).with_name("page_stub.js")
API = """
class Api extends EventTarget {
  fetchApi = (...given) => globalThis.host(...given);
  apiURL = (path) => path;
  interrupt() {}
}
export const api = new Api();
"""
APP = """
const queued = [], told = [];
export const app = {
  extensions: [], queued, told, canvas: {}, extensionManager: { toast: { add: (one) => told.push(one) } },
  registerExtension: (one) => app.extensions.push(one),
  queuePrompt: (...given) => queued.push(given[2]),
};
"""
# asked: what the server was asked. answers: path -> what it answers; without one it does not.
HEAD = """
import { api, app, Graph, Node, say, wait } from "./page_stub.js";
const asked = [], answers = { "/blocklora/run": null, "/blocklora/files": { files: [], unread: 0 },
  "/blocklora/list": {}, "/blocklora/scene": {} };
globalThis.host = async (url, init = {}) => {
  const path = url.split("?")[0];
  asked.push(url);
  if (!(path in answers)) throw new TypeError("Failed to fetch");
  const answer = answers[path];
  return answer instanceof Function ? answer(init) : Response.json(answer);
};
const has = (path) => asked.filter((url) => url.startsWith(path)).length;
const since = async (act, milliseconds = 320) => { asked.length = 0; act(); await wait(milliseconds); };
await Promise.all(["scene", "train", "companions", "loader/loader"].map((one) =>
  import(`./extensions/blocklora/js/${one}.js`)));
const { readFiles } = await import("./extensions/blocklora/js/loader/files.js");
const NEEDED = Object.fromEntries(["model", "clip", "vae", "images", "captions"].map((name) => [name, { id: 99 }]));
class Train extends Node {
  static comfyClass = "BlockLoRATrain";
  constructor(values = {}) { super("BlockLoRATrain", { concept: "<a>", ...values }, NEEDED); }
}
const loader = (files = "") =>
  new Node("BlockLoRALoader", { files, prompts: "", pictures: 4, steps: 20, size: 0 });
const scene = (links) => new Node("BlockLoRAScene", { scene: "", width: 512, height: 512 }, links);
const file = (name, more = {}) => ({ name, folder: 0, ...more });
const part = (within, name) => within.querySelector(`[data-part="${name}"]`);
const graph = new Graph("root");
app.graph = graph;
let result;
"""

Run = Callable[[str], Any]


def page(folder: Path) -> Run:
    """What a script of nodes leaves in `result`."""
    serve(folder, api=API, app=APP)
    shutil.copy(STUB, folder)

    def value(script: str) -> Any:
        end = "console.log(JSON.stringify(result)); process.exit(0);"
        return printed(folder / "run.js", f"{HEAD}{script}\n{end}")

    return value
