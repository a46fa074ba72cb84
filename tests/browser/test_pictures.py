"""Pictures dropped on the Images node: named, shown, captioned; what is on the disk stays the truth."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from tests.browser.canvas import Canvas
from tests.browser.hand import Hand

NODE = "BlockLoRAImages"


def png(colour: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


FILES = {
    "one.png": png((200, 40, 40), (64, 64)),
    "two.png": png((40, 200, 40), (600, 512)),
    "two.txt": b"a <b>green</b> dog",
    "two-masklabel.png": png((255, 255, 255), (600, 512)),
    "notes.pdf": b"%PDF",
}


def test_pictures_are_dropped_named_and_captioned(canvas: Canvas, base: Path) -> None:
    name = f"my dog {canvas.mode}"
    canvas.clear()
    node = canvas.add(NODE, (40, 40))
    panel = canvas.panel(node, "pictures")
    panel.locator(".bl-images").wait_for()
    Hand(canvas).drop(panel.locator(".bl-images"), FILES)
    dialog = canvas.page.get_by_role("dialog")
    dialog.get_by_text("Left out: notes.pdf").wait_for()
    canvas.page.keyboard.type(f"../{name}")
    canvas.page.keyboard.press("Enter")
    panel.get_by_text("2 pictures, 1 with a caption").wait_for()
    folder = base / "input" / f"_{name}"
    assert sorted(path.name for path in folder.iterdir()) == ["one.png", "two-masklabel.png", "two.png", "two.txt"]
    assert canvas.value(node, "folder") == f"_{name}"
    assert "Few pictures: 2" in str(panel.text_content()) and "one.png (64 x 64)" in str(panel.text_content())
    second = panel.get_by_label("Caption of two.png")
    assert second.input_value() == "a <b>green</b> dog"
    first = panel.get_by_label("Caption of one.png")
    first.fill("a red dog")
    first.press("Enter")
    panel.get_by_text("Caption of one.png saved").wait_for()
    assert (folder / "one.txt").read_text() == "a red dog"
    assert canvas.evaluate("document.activeElement.getAttribute('aria-label')") == "Caption of two.png"
    panel.locator("img.bl-mask").wait_for()
    panel.get_by_label("masks").uncheck()
    assert panel.locator("img.bl-mask").count() == 0


def test_the_folder_that_a_template_names_is_offered_as_the_name(canvas: Canvas) -> None:
    canvas.clear()
    name = f"my person {canvas.mode}"
    panel = canvas.panel(canvas.add(NODE, (40, 40), {"folder": name}), "pictures")
    panel.get_by_text(f"got '{name}'").wait_for()
    Hand(canvas).drop(panel, {"one.png": FILES["one.png"]})
    canvas.page.get_by_role("dialog").wait_for()
    canvas.page.keyboard.press("Enter")
    panel.get_by_text("1 picture, 0 with a caption").wait_for()


def test_the_dropped_folder_runs(canvas: Canvas, base: Path) -> None:
    canvas.clear()
    node = canvas.add(NODE, (40, 40))
    show = canvas.add("PreviewImage", (560, 40))
    canvas.link(node, "images", show, "images")
    panel = canvas.panel(node, "pictures")
    Hand(canvas).drop(panel.locator(".bl-images"), {name: FILES[name] for name in ("one.png", "two.png")})
    canvas.page.keyboard.type(f"run {canvas.mode}")
    canvas.page.keyboard.press("Enter")
    panel.get_by_text("2 pictures, 0 with a caption").wait_for()
    canvas.queue()
    history = canvas.idle()
    assert history["status"]["status_str"] == "success"
    assert len(history["outputs"][str(show)]["images"]) == 2
    assert base.is_dir()
