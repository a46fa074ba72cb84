"""The list of the Loader: rows over a text that stays the truth."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from blocklora_core.concept.lora_list import parse_list
from tests.browser.canvas import Canvas
from tests.browser.hand import Hand
from tests.browser.lora_files import HOSTILE, put_loras, put_people

NODE = "BlockLoRALoader"


@pytest.fixture
def loras(base: Path) -> Path:
    put_loras(base / "models" / "loras")
    return base / "models" / "loras"


def opened(canvas: Canvas, text: str = "") -> tuple[int, Locator]:
    canvas.clear()
    node = canvas.add(NODE, (40, 40), {"files": text})
    return node, canvas.panel(node, "list")


def text_of(canvas: Canvas, node: int) -> str:
    return str(canvas.prompt()[str(node)]["inputs"]["files"])


def pick(canvas: Canvas, panel: Locator, *names: str) -> None:
    panel.get_by_role("button", name="Add files").click()
    dialog = canvas.page.get_by_role("dialog")
    for name in names:
        dialog.get_by_role("option").filter(has_text=name).click()
    dialog.get_by_role("button", name=re.compile("^Add")).click()


def files(canvas: Canvas, node: int) -> list[str]:
    return [Path(entry.file).stem for entry in parse_list(text_of(canvas, node))]


@pytest.mark.usefixtures("loras")
def test_three_files_are_added_moved_and_switched(canvas: Canvas) -> None:
    node, panel = opened(canvas)
    pick(canvas, panel, "ada", "bob", "cid")
    assert files(canvas, node) == ["ada", "bob", "cid"]
    panel.get_by_role("switch", name="bob takes part").click()
    assert [entry.on for entry in parse_list(text_of(canvas, node))] == [True, False, True]
    rows = panel.get_by_role("listitem")
    grip, first = rows.nth(2).get_by_role("button", name="Move cid"), rows.nth(0).bounding_box()
    box = grip.bounding_box()
    assert box and first
    canvas.page.mouse.move(box["x"] + 5, box["y"] + 8)
    canvas.page.mouse.down()
    canvas.page.mouse.move(box["x"] + 5, first["y"] + 4, steps=6)
    canvas.page.mouse.up()
    assert files(canvas, node) == ["cid", "ada", "bob"]
    panel.get_by_role("button", name="Move cid").focus()
    canvas.page.keyboard.press("Alt+ArrowDown")
    canvas.page.keyboard.press("Alt+ArrowDown")
    assert files(canvas, node) == ["ada", "bob", "cid"]
    assert canvas.evaluate("document.activeElement.getAttribute('aria-label')") == "Move cid, number 3"
    canvas.page.keyboard.press("Delete")
    assert files(canvas, node) == ["ada", "bob"]


@pytest.mark.usefixtures("loras")
def test_strengths_by_drag_keys_and_typing(canvas: Canvas) -> None:
    node, panel = opened(canvas, "web/ada.safetensors")
    field = panel.get_by_role("spinbutton", name="Strength of ada")
    box = field.bounding_box()
    assert box
    canvas.page.mouse.move(box["x"] + 20, box["y"] + 8)
    canvas.page.mouse.down()
    canvas.page.mouse.move(box["x"] - 20, box["y"] + 8, steps=4)
    canvas.page.mouse.up()
    assert parse_list(text_of(canvas, node))[0].strength == 0.6
    field.click()
    canvas.page.keyboard.press("ArrowUp")
    assert parse_list(text_of(canvas, node))[0].strength == 0.65
    canvas.page.keyboard.press("Control+a")
    canvas.page.keyboard.type("-0,25")
    canvas.page.keyboard.press("Enter")
    assert parse_list(text_of(canvas, node))[0].strength == -0.25
    canvas.page.keyboard.press("Control+a")
    canvas.page.keyboard.type("99")
    canvas.page.keyboard.press("Enter")
    assert parse_list(text_of(canvas, node))[0].strength == 10
    panel.get_by_role("button", name="More about ada").click()
    panel.get_by_label("as the model").click()
    clip = panel.get_by_role("spinbutton", name="Strength of ada on CLIP")
    clip.click()
    canvas.page.keyboard.press("Control+a")
    canvas.page.keyboard.type("0.5")
    canvas.page.keyboard.press("Tab")
    words = panel.get_by_label("Words that call ada")
    words.fill("a | b <zed>")
    words.press("Tab")
    entry = parse_list(text_of(canvas, node))[0]
    assert (entry.strength, entry.clip, entry.words) == (10.0, 0.5, "a , b <zed>")


LIST = "# mine\nweb/ada.safetensors | 1 | on # best\nodd | 99\n\nblocklora/zed.safetensors\ntwin\ngone\nbroken\n# end"


@pytest.mark.usefixtures("loras")
def test_problems_and_clashes_are_shown_before_running(canvas: Canvas) -> None:
    node, panel = opened(canvas, LIST)
    panel.get_by_text("Slot 3 of 16: <zed> of line 5").wait_for()
    panel.get_by_text("expected a strength from -10 to 10").wait_for()
    panel.get_by_text("expected a file of the loras folder, got 'gone'").wait_for()
    panel.get_by_text("expected a safetensors file").wait_for()
    assert text_of(canvas, node) == LIST
    panel.get_by_role("switch", name="twin takes part").click()
    panel.get_by_text("Slot 3 of 16: <zed> of line 5").wait_for(state="detached")
    assert text_of(canvas, node) == LIST.replace("\ntwin\n", "\ntwin | 1 | off\n")


@pytest.mark.usefixtures("loras")
def test_the_text_stays_editable_and_saved(canvas: Canvas) -> None:
    node, panel = opened(canvas, "ada")
    panel.get_by_role("button", name="As text").click()
    area = panel.get_by_label("Files, one a line")
    area.fill("# hello\nbob | 0.5\nnobody")
    panel.get_by_text("Line 3: expected a file").wait_for()
    panel.get_by_role("button", name="As text").click()
    panel.get_by_role("spinbutton", name="Strength of bob").wait_for()
    assert text_of(canvas, node) == "# hello\nbob | 0.5\nnobody"
    saved = canvas.saved()
    canvas.clear()
    canvas.load(saved)
    panel = canvas.panel(node, "list")
    panel.get_by_role("spinbutton", name="Strength of bob").wait_for()
    assert text_of(canvas, node) == "# hello\nbob | 0.5\nnobody"


@pytest.mark.usefixtures("loras")
def test_the_picker_searches_by_what_files_say_and_shows_text_as_text(canvas: Canvas) -> None:
    node, panel = opened(canvas)
    panel.get_by_role("button", name="Add files").click()
    dialog = canvas.page.get_by_role("dialog")
    # The choices of folder and order are options, too.
    found = dialog.get_by_role("listbox", name="Files").get_by_role("option")
    found.nth(5).wait_for()
    assert found.filter(has_text=HOSTILE).count() == 1
    broken = found.filter(has_text="broken")
    assert "expected a safetensors file" in str(broken.text_content())
    broken.click(force=True)
    assert dialog.get_by_role("button", name="Add", exact=True).is_disabled()
    found.filter(has_text="ada").locator("img").wait_for()
    canvas.page.keyboard.type("OHWX")
    expect(found).to_have_count(1)
    canvas.page.keyboard.press("Enter")
    dialog.wait_for(state="detached")
    assert files(canvas, node) == ["ada"]
    assert canvas.evaluate("document.activeElement.dataset.part") == "add"
    canvas.page.keyboard.press("Enter")
    dialog = canvas.page.get_by_role("dialog")
    dialog.get_by_label("Folder").select_option("blocklora")
    expect(found).to_have_count(2)
    canvas.page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


@pytest.mark.usefixtures("loras")
def test_lists_are_kept_in_the_users_folder(canvas: Canvas, base: Path) -> None:
    node, panel = opened(canvas, "ada | 0.5\nbob")
    panel.get_by_role("button", name="Lists").click()
    dialog = canvas.page.get_by_role("dialog")
    dialog.get_by_label("Name of the list").fill("two <b>people</b>")
    dialog.get_by_role("button", name="Keep this list").click()
    dialog.get_by_role("button", name="two <b>people</b>", exact=True).wait_for()
    assert list(base.rglob("blocklora/lists.json"))
    canvas.page.keyboard.press("Escape")
    canvas.set_value(node, "files", "cid")
    panel.get_by_role("button", name="Lists").click()
    canvas.page.get_by_role("dialog").get_by_role("button", name="two <b>people</b>", exact=True).click()
    assert text_of(canvas, node) == "ada | 0.5\nbob"


@pytest.mark.usefixtures("loras")
def test_kept_lists_that_cannot_be_read_are_told_and_not_overwritten(canvas: Canvas, base: Path) -> None:
    kept = base / "user" / "default" / "blocklora" / "lists.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text('{"four": "ada"}', "utf-8")
    _, panel = opened(canvas, "bob")
    panel.get_by_role("button", name="Lists").click()
    dialog = canvas.page.get_by_role("dialog")
    name, keep = dialog.get_by_label("Name of the list"), dialog.get_by_role("button", name="Keep this list")
    dialog.get_by_role("button", name="four", exact=True).wait_for()
    with failing(canvas, "lists.json"):
        name.fill("mine")
        keep.click()
        dialog.get_by_text("Not kept: expected the kept lists, the server answered 500").wait_for()
        assert kept.read_text("utf-8") == '{"four": "ada"}' and name.input_value() == "mine"
    keep.click()
    dialog.get_by_role("button", name="mine", exact=True).wait_for()
    assert json.loads(kept.read_text("utf-8")) == {"four": "ada", "mine": "bob"}
    kept.write_text('{"four": "ada', "utf-8")
    dialog.get_by_role("button", name="Throw mine away").click()
    dialog.get_by_text("The file is left as it is").wait_for()
    canvas.page.keyboard.press("Escape")
    panel.get_by_role("button", name="Lists").click()
    canvas.page.get_by_text("Not read: expected a text for each name").wait_for()
    assert kept.read_text("utf-8") == '{"four": "ada'
    kept.unlink()


@contextmanager
def failing(canvas: Canvas, path: str) -> Iterator[None]:
    """The server answers 500 where `path` is asked for."""
    pattern = re.compile(re.escape(path))
    canvas.page.route(pattern, lambda route: route.fulfill(status=500))
    try:
        yield
    finally:
        canvas.page.unroute(pattern)


@pytest.mark.usefixtures("loras")
def test_files_of_the_desktop_are_taken_where_they_lie_in_a_loras_folder(canvas: Canvas) -> None:
    node, panel = opened(canvas)
    drop = """(element) => {
        const transfer = new DataTransfer();
        for (const name of ["bob.safetensors", "new.safetensors"]) transfer.items.add(new File(["x"], name));
        element.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }"""
    panel.locator(".bl-loader").evaluate(drop)
    panel.get_by_text("new: not in a loras folder").wait_for()
    assert files(canvas, node) == ["bob"]


HIDDEN = """(id) => ["prompts", "pictures", "steps", "size"].map((name) =>
    Boolean(app.graph.getNodeById(id).widgets.find((widget) => widget.name === name).hidden))"""


@pytest.mark.usefixtures("loras")
def test_settings_are_folded_until_they_are_asked_for_or_changed(canvas: Canvas) -> None:
    node, panel = opened(canvas, "ada")
    assert canvas.evaluate(HIDDEN, node) == [True] * 4
    inputs = canvas.prompt()[str(node)]["inputs"]
    assert (inputs["prompts"], inputs["pictures"], inputs["steps"], inputs["size"]) == ("", 4, 20, 0)
    panel.get_by_role("button", name="Settings").click()
    assert canvas.evaluate(HIDDEN, node) == [False] * 4
    canvas.set_value(node, "steps", 8)
    panel.get_by_role("button", name="Settings").click()
    saved = canvas.saved()
    canvas.clear()
    canvas.load(saved)
    canvas.panel(node, "list")
    assert canvas.evaluate(HIDDEN, node) == [False] * 4
    assert canvas.prompt()[str(node)]["inputs"]["steps"] == 8


@pytest.mark.essential
def test_by_hand_from_an_empty_canvas(canvas: Canvas, base: Path) -> None:
    """Three files, reordered, one switched off, run."""
    put_people(base / "models" / "loras")
    canvas.clear()
    hand = Hand(canvas)
    checkpoint = hand.add("CheckpointLoaderSimple", (120, 420))
    loader = hand.add(NODE, (520, 260))
    # CLIP comes along.
    hand.wire(checkpoint, "MODEL", loader, "model")
    show = hand.add("PreviewAny", (1050, 400))
    hand.wire(loader, "report", show, "source")
    panel = canvas.panel(loader, "list")
    pick(canvas, panel, "ada", "zed", "cid")
    panel.get_by_role("button", name="Move cid").focus()
    canvas.page.keyboard.press("Alt+ArrowUp")
    panel.get_by_role("switch", name="zed takes part").click()
    assert files(canvas, loader) == ["ada", "cid", "zed"]
    before = set(canvas.server.get("/history"))
    canvas.page.get_by_role("button", name="Run", exact=True).first.click()
    canvas.wait(lambda: set(canvas.server.get("/history")) - before, 120, "a run")
    history = canvas.idle()
    assert history["status"]["status_str"] == "success", history["status"]
    told = str(history["outputs"][str(show)])
    assert "2 concepts merged by" in told and "zed" not in told


@pytest.mark.usefixtures("loras")
def test_five_files_are_one_node_and_eight_gestures(canvas: Canvas) -> None:
    canvas.clear()
    hand = Hand(canvas)
    node = hand.add(NODE, (400, 260))
    hand.click(canvas.panel(node, "list").get_by_role("button", name="Add files"))
    dialog = canvas.page.get_by_role("dialog")
    for name in ("ada", "bob", "cid", "zed", "twin"):
        hand.click(dialog.get_by_role("option").filter(has_text=name))
    hand.click(dialog.get_by_role("button", name="Add 5 files"))
    assert len(files(canvas, node)) == 5 and hand.gestures == 8


@pytest.mark.usefixtures("loras")
def test_files_that_follow_each_other_are_chosen_by_shift_and_a_click(canvas: Canvas) -> None:
    """The damaged one among them is left out. By hand alone, five files are at most 7 acts."""
    canvas.clear()
    hand = Hand(canvas)
    node = hand.add(NODE, (400, 260))
    hand.click(canvas.panel(node, "list").get_by_role("button", name="Add files"))
    found = canvas.page.get_by_role("dialog").get_by_role("listbox", name="Files").get_by_role("option")
    found.nth(5).wait_for()
    hand.click(found.first)
    hand.click(found.last, shift=True)
    hand.click(canvas.page.get_by_role("dialog").get_by_role("button", name="Add 5 files"))
    assert files(canvas, node) == ["twin", "zed", "ada", "bob", "cid"] and hand.acts <= 7
