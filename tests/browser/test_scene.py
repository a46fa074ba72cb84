"""The canvas of a scene: boxes drawn, moved, written about, and run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator

from tests.browser.canvas import Canvas
from tests.browser.hand import Hand
from tests.browser.lora_files import put_people
from tests.hosting import CHECKPOINT

NODE = "BlockLoRAScene"
FILES = "scene/ada.safetensors\nscene/zed.safetensors"


@pytest.fixture
def people(base: Path) -> None:
    put_people(base / "models" / "loras")


def opened(canvas: Canvas, **values: Any) -> tuple[int, Locator]:
    canvas.clear()
    node = canvas.add(NODE, (0, 0), values)
    panel = canvas.panel(node, "canvas")
    panel.locator(".bl-scene-svg").wait_for()
    canvas.page.wait_for_timeout(300)
    return node, panel


def with_loader(canvas: Canvas, node: int, files: str = FILES) -> int:
    loader = canvas.add("BlockLoRALoader", (-460, 0), {"files": files})
    canvas.link(loader, "stack", node, "stack")
    return loader


def boxes(canvas: Canvas, node: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(canvas.prompt()[str(node)]["inputs"]["scene"])["boxes"]
    return found


def sheet(panel: Locator) -> Locator:
    return panel.locator(".bl-scene-sheet")


def near(box: dict[str, Any], *expected: float) -> bool:
    return all(abs(box[side] - wanted) < 0.02 for side, wanted in zip("xywh", expected, strict=True))


def test_boxes_are_drawn_moved_resized_and_deleted_by_mouse(canvas: Canvas) -> None:
    node, panel = opened(canvas)
    hand = Hand(canvas)
    hand.draw(sheet(panel), (0.1, 0.2), (0.4, 0.8))
    hand.draw(sheet(panel), (0.6, 0.2), (0.9, 0.8))
    assert near(boxes(canvas, node)[0], 0.1, 0.2, 0.3, 0.6) and near(boxes(canvas, node)[1], 0.6, 0.2, 0.3, 0.6)
    hand.draw(sheet(panel), (0.75, 0.5), (0.8, 0.6))
    assert near(boxes(canvas, node)[1], 0.65, 0.3, 0.3, 0.6)
    hand.draw(sheet(panel), (0.65, 0.3), (0.55, 0.2))
    assert near(boxes(canvas, node)[1], 0.55, 0.2, 0.4, 0.7)
    hand.click(panel.get_by_role("button", name="Copy"))
    assert len(boxes(canvas, node)) == 3
    hand.click(panel.get_by_role("button", name="Back", exact=True))
    hand.click(panel.get_by_role("button", name="Delete"))
    assert len(boxes(canvas, node)) == 2
    hand.click(panel.get_by_role("button", name="Undo"))
    hand.click(panel.get_by_role("button", name="Redo"))
    assert len(boxes(canvas, node)) == 2


def test_edges_snap_to_the_picture_and_to_each_other(canvas: Canvas) -> None:
    node, panel = opened(canvas)
    hand = Hand(canvas)
    hand.draw(sheet(panel), (0.005, 0.01), (0.497, 0.99))
    hand.draw(sheet(panel), (0.511, 0.2), (0.8, 0.99))
    first, second = boxes(canvas, node)
    assert (first["x"], first["y"], first["w"], first["h"]) == (0, 0, 0.5, 1)
    assert second["x"] == 0.5 and abs(second["y"] + second["h"] - 1) < 1e-3


def test_keys_do_all_that_the_mouse_does(canvas: Canvas) -> None:
    node, panel = opened(canvas, scene='{"boxes": [{"x": 0.2, "y": 0.2, "w": 0.2, "h": 0.5, "concept": "<a>"}]}')
    keys = canvas.page.keyboard
    panel.get_by_role("button", name="Box 1: <a>").focus()
    keys.press("ArrowRight")
    keys.press("Shift+ArrowDown")
    keys.press("Alt+ArrowLeft")
    assert near(boxes(canvas, node)[0], 0.21, 0.25, 0.19, 0.5)
    keys.press("Control+d")
    keys.press("[")
    assert [near(one, 0.21, 0.25, 0.19, 0.5) for one in boxes(canvas, node)] == [False, True]
    keys.press("Delete")
    assert len(boxes(canvas, node)) == 1
    keys.press("Escape")
    keys.press("Delete")
    assert len(boxes(canvas, node)) == 1
    assert canvas.evaluate("(id) => app.graph.getNodeById(id) !== null", node)


def test_a_lasso_is_a_freehand_shape(canvas: Canvas) -> None:
    node, panel = opened(canvas)
    panel.get_by_role("button", name="Lasso").click()
    box = sheet(panel).bounding_box()
    assert box
    path = [(0.3, 0.3), (0.6, 0.3), (0.7, 0.7), (0.3, 0.8), (0.3, 0.31)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in path]
    canvas.page.mouse.move(*points[0])
    canvas.page.mouse.down()
    for point in points[1:]:
        canvas.page.mouse.move(*point, steps=3)
    canvas.page.mouse.up()
    (drawn,) = boxes(canvas, node)
    assert len(drawn["lasso"]) > 4 and "x" not in drawn
    panel.get_by_role("button", name="Lasso").click()
    Hand(canvas).draw(sheet(panel), (0.5, 0.5), (0.6, 0.5))
    moved = boxes(canvas, node)[0]["lasso"]
    assert abs(min(x for x, _ in moved) - 0.4) < 0.03


@pytest.mark.usefixtures("people")
def test_the_form_writes_what_a_box_says(canvas: Canvas) -> None:
    node, panel = opened(canvas)
    with_loader(canvas, node)
    canvas.page.wait_for_timeout(800)
    hand = Hand(canvas)
    hand.draw(sheet(panel), (0.1, 0.1), (0.4, 0.9))
    hand.draw(sheet(panel), (0.6, 0.1), (0.9, 0.9))
    # Each gets who is not in the picture yet.
    assert [one["concept"] for one in boxes(canvas, node)] == ["<ada>", "<zed>"]
    hand.click(panel.get_by_role("group", name="Concepts to choose from").get_by_role("button", name="<ada>"))
    hand.type(panel.get_by_label("Prompt"), "{concept} in red")
    hand.type(panel.get_by_label("Negative"), "hat")
    # Between the steps of the arrow keys.
    panel.get_by_label("Weight").fill("0.33")
    panel.get_by_label("Feather").fill("0.125")
    told = boxes(canvas, node)[1]
    assert {name: told[name] for name in ("concept", "prompt", "negative", "weight", "feather")} == {
        "concept": "<ada>", "prompt": "{concept} in red", "negative": "hat", "weight": 0.33, "feather": 0.125,
    }  # fmt: skip


@pytest.mark.usefixtures("people")
def test_a_name_that_nobody_has_is_red_before_queueing(canvas: Canvas) -> None:
    node, panel = opened(canvas, scene='{"boxes": [{"concept": "<ada>"}, {"w": 0.5, "concept": "<eve>"}]}')
    loader = with_loader(canvas, node)
    wrong = panel.locator("[data-wrong]")
    wrong.wait_for()
    assert wrong.count() == 1 and wrong.get_attribute("data-box") == "1"
    panel.get_by_role("button", name="Box 2: <eve>").focus()
    panel.get_by_role("alert").filter(has_text="expected a name among <ada>, <zed>, got <eve>").wait_for()
    assert panel.get_by_label("Who").get_attribute("aria-invalid") == "true"
    canvas.set_value(loader, "files", f"{FILES} | 1 | on | <eve>")
    panel.get_by_role("button", name="Box 2: <eve>").focus()
    canvas.page.keyboard.press("ArrowRight")
    wrong.wait_for(state="detached")


VIEW = "{ scale: 0.5, offset: [100, 200] }"
HOSTILE = "<img src=x onerror=globalThis.hacked=1>"


def test_a_workflow_keeps_it_and_text_stays_text(canvas: Canvas) -> None:
    scene = json.dumps({"boxes": [{"w": 0.5, "prompt": HOSTILE}, {"x": 0.5, "w": 0.5, "concept": HOSTILE}]})
    node, panel = opened(canvas, scene=scene)
    saved = canvas.saved()
    canvas.clear()
    canvas.load(saved)
    panel = canvas.panel(node, "canvas")
    panel.get_by_role("button", name=f"Box 2: {HOSTILE}").focus()
    assert panel.get_by_label("Who").input_value() == HOSTILE
    assert json.loads(canvas.prompt()[str(node)]["inputs"]["scene"])["boxes"][0]["prompt"] == HOSTILE
    assert canvas.evaluate("globalThis.hacked") is None


def test_what_is_no_scene_is_told_and_left_alone(canvas: Canvas) -> None:
    node, panel = opened(canvas, scene='{"boxes": 3}')
    panel.get_by_role("alert").filter(has_text="expected a list").wait_for()
    assert canvas.prompt()[str(node)]["inputs"]["scene"] == '{"boxes": 3}'


def test_null_in_a_scene_says_nothing_and_other_kinds_are_told(canvas: Canvas) -> None:
    scene = {"boxes": [{"w": 0.3, "concept": None, "prompt": "x", "negative": None, "lasso": None}], "picture": None}
    node, panel = opened(canvas, scene=json.dumps(scene))
    panel.get_by_role("button", name="Box 1: x").focus()
    assert panel.get_by_label("Who").input_value() == panel.get_by_label("Negative").input_value() == ""
    Hand(canvas).draw(sheet(panel), (0.5, 0.2), (0.9, 0.8))
    assert [one.get("prompt") for one in boxes(canvas, node)] == ["x", None]
    assert all(None not in one.values() for one in boxes(canvas, node))
    odd = '{"boxes": [{"prompt": "x"}, {"concept": 5}]}'
    canvas.set_value(node, "scene", odd)
    panel.get_by_role("alert").filter(has_text="expected text in concept of box 2, got 5").wait_for()
    assert canvas.prompt()[str(node)]["inputs"]["scene"] == odd
    panel.get_by_role("button", name="Add box").click()
    panel.get_by_role("button", name="Undo").click()
    assert canvas.prompt()[str(node)]["inputs"]["scene"] == odd


def test_the_canvas_has_the_picture_s_shape(canvas: Canvas) -> None:
    node, panel = opened(canvas, width=512, height=1024)
    shown = sheet(panel).bounding_box()
    assert shown and abs(shown["height"] / shown["width"] - 2) < 0.05
    canvas.set_value(node, "width", 2048)
    canvas.page.wait_for_timeout(200)
    shown = sheet(panel).bounding_box()
    assert shown and abs(shown["height"] / shown["width"] - 0.5) < 0.05


def test_a_narrow_node_keeps_a_wide_canvas(canvas: Canvas) -> None:
    """As in the templates: what is said of a box stands below it."""
    node, _ = opened(canvas)
    saved = canvas.saved()
    saved["nodes"][0]["size"] = [420, 820]
    canvas.load(saved)
    panel = canvas.panel(node, "canvas")
    form = panel.locator(".bl-scene-form")

    def wide() -> bool:
        drawn, said = sheet(panel).bounding_box(), form.bounding_box()
        return bool(drawn and said and drawn["width"] > 200 and said["y"] >= drawn["y"] + drawn["height"])

    canvas.wait(wide, what="the form to stand below a canvas of 200 pixels")


@pytest.mark.essential
@pytest.mark.usefixtures("people")
def test_two_people_in_two_boxes_from_an_empty_canvas(canvas: Canvas) -> None:
    """By mouse and keyboard alone: at most 7 nodes and 15 gestures, from nothing to the picture."""
    canvas.clear()
    canvas.evaluate(
        "() => { app.canvas.ds.scale = 0.5; app.canvas.ds.offset = [100, 200]; app.canvas.setDirty(true, true); }"
    )
    canvas.server.post("/history", {"clear": True})
    # As it is in new installations from frontend 1.24 on.
    canvas.evaluate("app.extensionManager.setting.set('Comfy.LinkRelease.Action', 'search box')")
    hand = Hand(canvas)
    checkpoint = hand.add("CheckpointLoaderSimple", (150, 150))
    canvas.set_value(checkpoint, "ckpt_name", CHECKPOINT)
    loader = hand.pull(checkpoint, "MODEL", (150, 400), "BlockLoRALoader")
    files = canvas.panel(loader, "list")
    hand.click(files.get_by_role("button", name="Add files"))
    for name in ("ada", "zed"):
        hand.click(canvas.page.get_by_role("option").filter(has_text=f"calls it: <{name}>"))
    hand.click(canvas.page.get_by_role("dialog").get_by_role("button", name=re.compile("^Add")))
    scene = hand.pull(loader, "stack", (480, 150), NODE)
    panel = canvas.panel(scene, "canvas")
    canvas.page.wait_for_timeout(800)
    hand.draw(sheet(panel), (0.02, 0.02), (0.49, 0.98))
    hand.draw(sheet(panel), (0.52, 0.02), (0.98, 0.98))
    sampler = hand.pull(scene, "MODEL", (950, 150), "KSampler")
    # In seconds, not minutes; the graph is the same.
    for node, values in ((sampler, {"steps": 2}), (scene, {"width": 192, "height": 128})):
        for name, value in values.items():
            canvas.set_value(node, name, value)
    decode = hand.pull(sampler, "LATENT", (1150, 150), "VAEDecode")
    hand.wire(checkpoint, "VAE", decode, "vae")
    hand.pull(decode, "IMAGE", (1150, 400), "SaveImage")
    hand.press("Control+Enter")
    history = canvas.idle()
    assert history["status"]["status_str"] == "success", history["status"]
    asked = history["prompt"][2]
    assert [one["concept"] for one in json.loads(asked[str(scene)]["inputs"]["scene"])["boxes"]] == ["<ada>", "<zed>"]
    links = [value for one in asked.values() for value in one["inputs"].values() if isinstance(value, list)]
    # By hand alone 20, where a new node does not hang on the mouse until a click.
    assert (len(asked), len(links)) == (6, 12) and hand.gestures <= 14 and hand.acts <= 26
    assert any(output.get("images") for output in history["outputs"].values())
