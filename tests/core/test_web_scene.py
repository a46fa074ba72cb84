"""The scene's editor by itself, with a page and a server that are played: what a hand does to one box stays there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.javascript import printed, serve

# As much of a page as the editor asks for.
PAGE = """
class Element extends EventTarget {
  attributes = {}; children = []; style = { setProperty() {} }; value = "";
  constructor(tag) { super(); this.tag = tag; }
  get type() { return this.attributes.type ?? ""; }
  get min() { return this.attributes.min; }
  get max() { return this.attributes.max; }
  get valueAsNumber() { return this.value === "" ? NaN : Number(this.value); }
  setAttribute(name, value) { this.attributes[name] = value; }
  getAttribute(name) { return this.attributes[name] ?? null; }
  removeAttribute(name) { delete this.attributes[name]; }
  append(...more) { this.children.push(...more); }
  replaceChildren(...more) {
    if (this.children.includes(document.activeElement)) document.activeElement = document.body;
    this.children = more;
  }
  querySelectorAll() { return []; }
  querySelector() { return null; }
  closest() { return "data-box" in this.attributes ? this : null; }
  focus() { document.activeElement = this; }
  getBoundingClientRect() { return { left: 0, top: 0, width: 500, height: 500 }; }
  setPointerCapture(id) { this.pointer = id; }
  hasPointerCapture(id) { return this.pointer === id; }
}
const made = (_, tag) => new Element(tag);
globalThis.document = { body: new Element("body"), createElement: (tag) => made("", tag), createElementNS: made };
globalThis.window = globalThis;
globalThis.ResizeObserver = class { observe() {} disconnect() {} };
globalThis.LiteGraph = { LGraphNode: class { getInputLink(slot) { return this.links[slot]; } } };
globalThis.host = async () => Response.json({});
"""

API = "export const api = { fetchApi: (...given) => globalThis.host(...given), apiURL: (path) => path };"

HEAD = """
import "./page.js";
import { lookAhead } from "./extensions/blocklora/js/scene/ahead.js";
import { Bar } from "./extensions/blocklora/js/scene/bar.js";
import { Editor } from "./extensions/blocklora/js/scene/editor.js";
import { Form } from "./extensions/blocklora/js/scene/form.js";
import { Scene } from "./extensions/blocklora/js/scene/model.js";
import { Pointer } from "./extensions/blocklora/js/scene/pointer.js";
const scene = new Scene(() => {});
const boxes = () => JSON.parse(scene.text).boxes;
const sleep = (time) => new Promise((then) => setTimeout(then, time));
const happens = (element, kind, more = {}) => element.dispatchEvent(Object.assign(new Event(kind), more));
const button = (element, label) => element.children.find((one) => one.children[0] === label);
"""

ADA = {"x": 0.0, "y": 0.0, "w": 0.3, "h": 0.5, "concept": "<ada>", "prompt": "long, of ada"}
BEN = {"x": 0.6, "y": 0.0, "w": 0.3, "h": 0.5, "concept": "<ben>", "prompt": "long, of ben"}

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What a script leaves in `result`; before it, `scene` has read a text, by default that of Ada and Ben."""
    folder = tmp_path_factory.mktemp("page")
    serve(folder, api=API)
    (folder / "page.js").write_text(PAGE, "utf-8")

    def value(script: str, text: str = json.dumps({"boxes": [ADA, BEN]})) -> Any:
        read = f"scene.read({json.dumps(text)});"
        return printed(folder / "run.js", f"{HEAD}{read}\n{script}\nconsole.log(JSON.stringify(result));")

    return value


HAND = """
const svg = document.createElement("svg");
const stage = { scene, svg, size: { w: 500, h: 500 }, guides: {}, render() {}, focus() {} };
stage.numberOf = (element) => Number(element.getAttribute("data-box") ?? -1);
new Pointer(stage, () => {});
const touches = (kind, number, x, y, pointerId = 1) => {
  const target = document.createElement("path");
  if (number >= 0) target.setAttribute("data-box", number);
  const event = Object.assign(new Event(kind), { button: 0, clientX: x, clientY: y, pointerId, altKey: true });
  Object.defineProperty(event, "target", { value: target });
  svg.dispatchEvent(event);
};
touches("pointerdown", 0, 50, 50);
touches("pointermove", 0, 60, 60);
"""


def said(boxes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(one["concept"], one["prompt"]) for one in boxes]


def test_a_second_finger_on_another_box_leaves_it_as_it_is(run: Run) -> None:
    script = """touches("pointerdown", 1, 350, 50, 2); touches("pointermove", 1, 400, 50, 2);
        touches("pointermove", 0, 100, 100); const result = boxes();"""
    ada, ben = run(HAND + script)
    assert (ada["x"], ada["y"]) == (0.1, 0.1) and said([ada]) == said([ADA])
    assert ben == BEN


def test_after_a_finger_is_lost_the_next_one_draws(run: Run) -> None:
    script = """svg.pointer = 0; touches("pointerdown", 1, 350, 50, 2); touches("pointermove", 1, 350, 100, 2);
        touches("pointermove", 0, 200, 200); const result = boxes();"""
    ada, ben = run(HAND + script)
    assert (ada["x"], ada["y"], ben["x"], ben["y"]) == (0.02, 0.02, 0.6, 0.1)


@pytest.mark.parametrize(
    "meanwhile",
    ["remove()", "duplicate()", "select(1)", "shift(1)", "select(-1)", "read('{')", """read('{"boxes": []}')"""],
)
@pytest.mark.parametrize("end", ["pointerup", "pointercancel"])
def test_a_drag_ends_where_its_box_is_gone_or_another_chosen(run: Run, meanwhile: str, end: str) -> None:
    then = f'touches("pointermove", 0, 200, 200); touches("{end}", 0, 200, 200);'
    left, now = run(f"{HAND} scene.{meanwhile}; const left = scene.text; {then} const result = [left, scene.text];")
    assert now == left


def test_a_drag_moves_a_box_and_nothing_of_what_it_says(run: Run) -> None:
    lasso = {"lasso": [[0.0, 0.0], [0.4, 0.0], [0.2, 0.4]], "concept": "<ada>"}
    typed = """scene.update({ prompt: "typed meanwhile" }); touches("pointermove", 0, 100, 50);
        const result = boxes();"""
    text = json.dumps({"boxes": [lasso]})
    (told,) = run(HAND + typed, text)
    assert told == {"lasso": [[0.1, 0], [0.5, 0], [0.3, 0.4]], "concept": "<ada>", "prompt": "typed meanwhile"}
    cancelled = """touches("pointercancel", 0, 60, 60); const result = boxes();"""
    assert run(HAND + cancelled, text) == [lasso]


@pytest.mark.parametrize("text", ['{"boxes": [{"weight": "heavy", "prompt": "long"}]}', '{"boxes": [', '{"boxes": 3}'])
def test_what_is_no_scene_loses_its_text_to_a_box_alone(run: Run, text: str) -> None:
    bar = """const bar = new Bar(scene, { draw: (box) => scene.add(box) }, () => {});
        const press = (label) => { const one = button(bar.element, label); if (!one.disabled) happens(one, "click"); };
        const off = ["Last picture", "Picture…"].map((label) => button(bar.element, label).disabled);"""
    act = """press("Last picture"); scene.edit({ picture: "last" }); scene.update({ prompt: "x" });
        const kept = scene.text; press("Add box"); const added = scene.boxes.length; press("Undo");
        const result = { off, kept, added, again: scene.text };"""
    assert run(bar + act, text) == {"off": [True, True], "kept": text, "added": 1, "again": text}


def test_a_picture_that_is_none_keeps_no_box_from_being_read(run: Run) -> None:
    for odd in (7, True, ["a"], {"a": 1}):
        text = json.dumps({"boxes": [ADA, BEN], "picture": odd})
        told = run("const result = [scene.problem, scene.picture, scene.boxes.length];", text)
        assert told == ["", "", 2]


def test_what_else_stands_in_a_scene_is_kept(run: Run) -> None:
    others = {"version": 2, "note": {"by": "ada", "exact": 0.123456789}, "text": "t", "selected": 1, "__proto__": 3}
    text = json.dumps({**others, "boxes": [ADA, BEN], "picture": "a.png"})
    edits = """scene.add({ x: 0, y: 0, w: 1, h: 1 }); scene.edit({ picture: "last" }); scene.remove();
        const result = [JSON.parse(scene.text), scene.selected];"""
    told, selected = run(edits, text)
    assert told == {**others, "boxes": [ADA, BEN], "picture": "last"} and selected == 1
    scene = run(f"scene.read('[]'); {edits}", text)[0]
    assert scene == {"boxes": [], "picture": "last"}


FORM = """
const names = ["<ada>", "<ben>"];
const form = new Form(scene, { names: () => names, problem: () => "" });
const all = (one) => [one, ...(one.children ?? []).flatMap(all)];
const field = (name) => all(form.element).find((one) => one.attributes?.id?.endsWith(name));
scene.select(0);
const types = (name, ...texts) => {
  const one = field(name);
  one.focus();
  for (const text of texts) { one.value = text; happens(one, "input"); }
  return one;
};
"""


@pytest.mark.parametrize(
    ("name", "typed", "stored"),
    [
        ("weight", ["0", "0.", "0.3", "0.33"], 0.33),
        ("weight", ["0.97"], 0.97),
        ("weight", ["1", "12"], 10),
        ("feather", ["0.1", "0.12", "0.125"], 0.125),
        ("feather", ["1.5"], 1),
        ("feather", ["0.5", "-0.5"], 0),
        ("weight", ["0.5", "0.123456"], 0.1235),
        ("weight", ["0.5", ""], 0.5),
    ],
)
def test_every_number_within_bounds_is_kept_and_the_field_shows_what_is(
    run: Run, name: str, typed: list[str], stored: float
) -> None:
    script = f"""const one = types("{name}", ...{json.dumps(typed)}); form.render();
        const typing = one.value; happens(one, "change"); const result = [scene.current.{name}, typing, one.value];"""
    assert run(FORM + script) == [stored, typed[-1], f"{stored:g}"]


def test_a_field_that_has_the_focus_still_shows_what_came_from_elsewhere(run: Run) -> None:
    script = """const one = types("weight", "0.5"); scene.undo(); const undone = one.value;
        scene.select(-1); happens(one, "change"); const result = [undone, one.value];"""
    assert run(FORM + script) == ["1", ""]


def test_a_chip_that_is_pressed_keeps_the_focus(run: Run) -> None:
    script = """const [ada, ben] = form.chips.children; ben.focus(); happens(ben, "click"); form.render();
        const pressed = [ada, ben].map((one) => one.getAttribute("aria-pressed"));
        const has = document.activeElement === ben;
        names.reverse(); form.render();
        const result = [has, boxes()[0].concept, pressed, form.chips.children.map((one) => one.children[0])];"""
    assert run(FORM + script) == [True, "<ben>", ["false", "true"], ["<ben>", "<ada>"]]


GRAPH = """
const { LGraphNode } = globalThis.LiteGraph;
const node = (id, type, widgets, inputs, links) => Object.assign(new LGraphNode(), {
  id, type, mode: 0, links, inputs: inputs.map((name) => ({ name })), isInputConnected: (slot) => Boolean(links[slot]),
  widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
  graph: { getNodeById: (id) => ({ 7: loader })[id] ?? null },
});
const outside = { origin_id: -10, origin_slot: 0 };
const loader = node(7, "BlockLoRALoader", { files: "inner", keep: true }, ["model", "files"], [outside, outside]);
const links = [{ origin_id: 7, origin_slot: 2 }, outside, null];
const own = node(8, "BlockLoRAScene", { prompt: "inner", mode: "regional" }, ["stack", "prompt", "mode"], links);
let sent = null;
globalThis.host = async (_, { body }) => Response.json((sent = JSON.parse(body)) && { names: ["<ada>"] });
const told = await lookAhead(own);
const result = [sent, told];
"""


def test_what_comes_from_outside_of_a_subgraph_is_not_known_and_not_its_inner_text(run: Run) -> None:
    sent, told = run(GRAPH)
    nobody = ["outside", 0]
    own = {"stack": ["7", 2], "prompt": nobody, "mode": "regional"}
    assert sent["graph"] == {
        "8": {"class_type": "BlockLoRAScene", "inputs": own},
        "7": {"class_type": "BlockLoRALoader", "inputs": {"model": nobody, "files": nobody, "keep": True}},
        "outside": {"class_type": "", "inputs": {}},
    }
    assert told == {"names": ["<ada>"], "problems": {}, "problem": ""}


EDITOR = """
const unhandled = [];
process.on("unhandledRejection", (error) => unhandled.push(String(error)));
const of = (name) => ({ outputs: { 9: { images: [{ filename: name, subfolder: "", type: "output" }] } } });
const away = () => Promise.reject(new TypeError("Failed to fetch"));
let history = async () => Response.json({ 1: of("old.png") });
let ahead = async () => Response.json({ names: [], problems: {}, problem: "" });
globalThis.host = (url) => (url.startsWith("/history") ? history() : ahead());
const editor = new Editor({ id: 1, type: "BlockLoRAScene", mode: 0, inputs: [], widgets: [] }, () => {});
const press = (label) => happens(button(editor.bar.element, label), "click");
const shown = () => /filename=([^&]*)/.exec(editor.stage.under.src ?? "")?.[1] ?? "";
const alert = () => (editor.alert.hidden ? "" : editor.alert.children[0]);
"""


def test_a_slow_answer_takes_no_newer_picture_away(run: Run) -> None:
    script = """const first = shown();
        history = async () => { await sleep(40); return Response.json({ 1: of("old.png") }); };
        press("Last picture"); editor.made("new.png [output]"); await sleep(80); const newer = shown();
        press("Last picture"); press("Last picture"); await sleep(80);
        editor.dispose(); const result = [first, newer, shown()];"""
    assert run(EDITOR + script) == ["", "new.png", "old.png"]


@pytest.mark.parametrize("broken", ["away", "async () => new Response('', { status: 500 })"])
def test_a_server_that_does_not_answer_is_told(run: Run, broken: str) -> None:
    script = f"""ahead = {broken}; editor.check(); await sleep(350);
        const silent = alert(); ahead = async () => Response.json({{}}); editor.check(); await sleep(350);
        editor.dispose(); const result = [unhandled, silent, alert()];"""
    unhandled, silent, after = run(EDITOR + script)
    assert unhandled == [] and silent.startswith("The boxes are not checked: expected an answer") and after == ""


def test_a_last_picture_that_does_not_come_is_told_until_the_scene_changes(run: Run) -> None:
    script = """history = away; press("Last picture"); await sleep(350);
        const silent = alert(); press("Last picture"); editor.dispose(); const result = [unhandled, silent, alert()];"""
    unhandled, silent, after = run(EDITOR + script)
    assert unhandled == [] and silent.startswith("The last picture is not shown: expected an answer") and after == ""
