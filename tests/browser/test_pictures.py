"""Pictures dropped on the Images node: named, shown, captioned; what is on the disk stays the truth."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

from PIL import Image
from playwright.sync_api import Route, expect

from launcher.shipped.files import SUBGRAPHS
from tests.browser.canvas import Canvas
from tests.browser.hand import Hand
from tests.conftest import ROOT

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


def test_a_second_set_of_the_same_names_keeps_its_captions(canvas: Canvas, base: Path) -> None:
    name = f"sets {canvas.mode}"
    canvas.clear()
    node = canvas.add(NODE, (40, 40))
    panel = canvas.panel(node, "pictures")
    images = panel.locator(".bl-images")
    first = {"1.png": png((200, 40, 40), (64, 64)), "1.txt": b"red", "1-masklabel.png": png((9, 9, 9), (64, 64))}
    second = {"1.png": png((40, 200, 40), (64, 64)), "1.txt": b"green", "1-masklabel.png": png((0, 0, 0), (64, 64))}
    other = {"1.bmp": png((40, 40, 200), (64, 64)), "1.txt": b"blue"}
    Hand(canvas).drop(images, first)
    canvas.page.keyboard.type(name)
    canvas.page.keyboard.press("Enter")
    panel.get_by_text("1 picture, 1 with a caption").wait_for()
    for files, count in ((second, 2), (other, 3), (second, 3), ({"1.txt": b"red again"}, 3)):
        panel.get_by_role("status").evaluate("(status) => { status.textContent = ''; }")
        Hand(canvas).drop(images, files)
        canvas.page.get_by_role("button", name=f"Add to {name}").click()
        panel.get_by_text(f"{count} pictures, {count} with a caption").wait_for()
    folder = base / "input" / name
    masks = {"1-masklabel.png": first, "1 (1)-masklabel.png": second}
    held = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert held == {
        "1.png": first["1.png"], "1 (1).png": second["1.png"], "1 (2).bmp": other["1.bmp"],
        "1.txt": b"red again", "1 (1).txt": b"green", "1 (2).txt": b"blue",
        **{mask: files["1-masklabel.png"] for mask, files in masks.items()},
    }  # fmt: skip


def test_a_picture_without_a_caption_shows_the_one_that_it_is_trained_with(canvas: Canvas, base: Path) -> None:
    name = f"kohya {canvas.mode}"
    folder = base / "input" / name / "10_ohwx man"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(FILES["one.png"])
    (folder / "b.png").write_bytes(FILES["one.png"])
    (folder / "b.txt").write_bytes(b"\xff")
    canvas.clear()
    node = canvas.add(NODE, (40, 40), {"folder": name})
    panel = canvas.panel(node, "pictures")
    shown = panel.get_by_label("Caption of 10_ohwx man/a.png")
    expect(shown).to_have_attribute("placeholder", "ohwx man")
    canvas.set_value(node, "default_caption", "a man")
    expect(shown).to_have_attribute("placeholder", "a man")
    # Bytes that are no text are not taken for an empty caption.
    panel.get_by_text("Save it as UTF-8").wait_for()
    expect(panel.get_by_label("Caption of 10_ohwx man/b.png")).not_to_be_editable()


def test_a_caption_goes_to_the_folder_that_is_shown(canvas: Canvas, base: Path) -> None:
    first, second = (base / "input" / f"{name} {canvas.mode}" for name in ("one", "other"))
    for folder in (first, second):
        folder.mkdir()
        (folder / "a.png").write_bytes(FILES["one.png"])
    canvas.clear()
    node = canvas.add(NODE, (40, 40), {"folder": first.name})
    panel = canvas.panel(node, "pictures")
    area = panel.get_by_label("Caption of a.png")
    area.wait_for()
    waiting: list[Route] = []
    asked = re.compile("blocklora/pictures")
    canvas.page.route(asked, lambda route: waiting.append(route))
    canvas.set_value(node, "folder", second.name)
    area.fill("of the first")
    area.blur()
    panel.get_by_text("Caption of a.png saved").wait_for()
    canvas.page.unroute(asked)
    assert (first / "a.txt").read_text("utf-8") == "of the first" and not (second / "a.txt").exists()
    waiting[0].continue_()
    expect(area).to_have_value("")


def test_a_field_keeps_its_caret_as_the_folder_is_read_and_any_name_its_caption(canvas: Canvas, base: Path) -> None:
    folder = base / "input" / f"odd {canvas.mode}"
    folder.mkdir()
    for name in ('the "boss".png', "z;1;2.png"):
        (folder / name).write_bytes(FILES["one.png"])
    canvas.clear()
    node = canvas.add(NODE, (40, 40), {"folder": folder.name})
    panel = canvas.panel(node, "pictures")
    boss, other = (panel.get_by_label(f"Caption of {name}") for name in ('the "boss".png', "z;1;2.png"))
    boss.fill("half a caption")
    boss.evaluate("(field) => field.setSelectionRange(4, 4)")
    (folder / "0.png").write_bytes(FILES["one.png"])
    canvas.set_value(node, "folder", folder.name)
    panel.get_by_label("Caption of 0.png").wait_for()
    canvas.page.keyboard.type(" of")
    expect(boss).to_have_value("half of a caption")
    boss.press("Enter")
    panel.get_by_text('Caption of the "boss".png saved').wait_for()
    canvas.page.keyboard.type("z")
    other.blur()
    panel.get_by_text("Caption of z;1;2.png saved").wait_for()
    written = {path.name: path.read_text("utf-8") for path in folder.glob("*.txt")}
    assert written == {'the "boss".txt': "half of a caption", "z;1;2.txt": "z"}


OPEN = """() => {
    const block = app.graph.nodes[0];
    app.canvas.openSubgraph(block.subgraph, block);
    return block.subgraph.nodes.find((node) => node.type === "BlockLoRAImages").id;
}"""
UNLINK = "(node) => node.disconnectInput(node.findInputSlot('folder'))"
INNER = "(id) => app.canvas.graph.getNodeById(id)"


def test_a_folder_that_a_subgraph_gives_is_not_edited_within(canvas: Canvas) -> None:
    canvas.load(json.loads((ROOT / SUBGRAPHS / "Train a person.json").read_text("utf-8")))
    node = canvas.evaluate(OPEN)
    find = f"(id) => ({INNER})(id)?.widgets.find((one) => one.name === 'pictures')?.element.dataset.panel"
    number = canvas.page.wait_for_function(find, arg=node).json_value()
    panel = canvas.page.locator(f'[data-panel="{number}"]')
    panel.get_by_text("another Images + Captions node").wait_for()
    expect(panel.get_by_role("button", name="+ Add pictures")).to_be_hidden()
    Hand(canvas).drop(panel, {"one.png": FILES["one.png"]})
    panel.get_by_text("nothing was added").wait_for()
    assert canvas.page.get_by_role("dialog").count() == 0
    canvas.evaluate(
        f"(id) => {{ const node = ({INNER})(id); node.disconnectInput(node.findInputSlot('folder')); }}", node
    )
    panel.get_by_text("got 'my person'").wait_for()
    expect(panel.get_by_role("button", name="+ Add pictures")).to_be_visible()
    canvas.evaluate("() => app.canvas.setGraph(app.graph.rootGraph ?? app.graph)")
    # The host's map of the graph says so of every subgraph that opens.
    canvas.errors[:] = [one for one in canvas.errors if "graph that was never set up" not in one]
