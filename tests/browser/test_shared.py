"""Panels of shared/dom.js: their height, their keys, their text; stock widgets they stand in for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import FloatRect

from tests.browser.canvas import Canvas
from tests.browser.hand import Hand

MODULE = "/extensions/blocklora/js/shared/dom.js"
# As the pack does it: a node has its panels before it is in the graph.
PANEL = """async ([kind, options, module]) => {
    const { addPanel, el } = await import(module);
    const node = LiteGraph.createNode(kind);
    const parts = [el("button", { class: "press" }, "Press"), el("p", {}, "<b>x</b>")];
    globalThis.panelContent = el("div", { class: "bl-column" }, parts);
    addPanel(node, "panel", globalThis.panelContent, options);
    app.graph.add(node);
    return node.id;
}"""
STAND_IN = """async ([id, module]) => {
    const { standIn } = await import(module);
    globalThis.heard = [];
    globalThis.value = standIn(app.graph.getNodeById(id), "default_caption", (value) => globalThis.heard.push(value));
}"""
COLOURS = """async () => {
    const painted = () => [
        app.canvas.colourGetter?.getDisconnectedColor("BLOCK_LORA_STACK") ??
            app.canvas.default_connection_color_byType.BLOCK_LORA_STACK,
        LGraphCanvas.link_type_colors.BLOCK_LORA_STACK,
        getComputedStyle(document.documentElement).getPropertyValue("--color-datatype-BLOCK_LORA_STACK"),
    ];
    const before = painted();
    const setting = app.extensionManager.setting;
    const palette = setting.get("Comfy.ColorPalette");
    for (const id of ["light", palette]) {
        await setting.set("Comfy.ColorPalette", id);
        await new Promise((done) => setTimeout(done, 300));
    }
    return [...before, ...painted()];
}"""
HIGHER = "globalThis.panelContent.append(Object.assign(document.createElement('div'), { style: 'height: 150px' }))"
NODE = "BlockLoRAImages"


def _with_panel(canvas: Canvas, options: dict[str, Any] | None = None, kind: str = NODE) -> int:
    canvas.clear()
    return int(canvas.evaluate(PANEL, [kind, options or {}, MODULE]))


def _height(canvas: Canvas, node: int) -> float:
    return float(canvas.evaluate("(id) => app.graph.getNodeById(id).size[1]", node))


def test_height_follows_the_content(canvas: Canvas) -> None:
    node = _with_panel(canvas)
    panel = canvas.panel(node, "panel")
    panel.locator("button.press").wait_for()
    canvas.page.wait_for_timeout(300)
    before, shown = _height(canvas, node), panel.bounding_box()
    assert shown is not None
    content = canvas.evaluate("globalThis.panelContent.offsetHeight")
    assert abs(shown["height"] - content) <= 6
    canvas.evaluate(HIGHER)
    canvas.wait(lambda: 140 <= _height(canvas, node) - before <= 170, what="the node to be higher")
    canvas.evaluate("globalThis.panelContent.lastChild.remove()")
    canvas.wait(lambda: abs(_height(canvas, node) - before) <= 4, what="the node to be lower again")


def test_text_is_text(canvas: Canvas) -> None:
    node = _with_panel(canvas)
    assert canvas.panel(node, "panel").locator("p").text_content() == "<b>x</b>"
    for attribute in ("onclick", "srcdoc", "style"):
        script = f"import('{MODULE}').then((dom) => dom.el('div', {{ {attribute}: 'x' }})).catch((e) => e.name)"
        assert canvas.evaluate(script) == "TypeError"
    script = f"import('{MODULE}').then((dom) => dom.el('a', {{ href: ' javascript:x' }})).catch((e) => e.name)"
    assert canvas.evaluate(script) == "TypeError"


def test_keys_and_clicks_stay_within(canvas: Canvas) -> None:
    node = _with_panel(canvas)
    button = canvas.panel(node, "panel").locator("button.press")
    button.click()
    canvas.page.keyboard.press("Delete")
    canvas.page.keyboard.press("Backspace")
    assert canvas.evaluate("(id) => app.graph.getNodeById(id) !== null", node)
    assert canvas.evaluate("document.activeElement.className") == "press"


def _shown(canvas: Canvas, options: dict[str, Any]) -> tuple[int, FloatRect]:
    node = _with_panel(canvas, options, "BlockLoRALoad")
    panel = canvas.panel(node, "panel")
    panel.locator("button.press").wait_for()
    canvas.evaluate(HIGHER)
    canvas.page.wait_for_timeout(300)
    # Elements are placed when the canvas is drawn, and without a mouse it is not drawn again.
    canvas.evaluate("app.graph.setDirtyCanvas(true, true)")
    width = canvas.evaluate("(id) => app.graph.getNodeById(id).size[0]", node)

    def lies() -> bool:
        box = panel.bounding_box()
        return box is not None and box["width"] <= width + 1

    canvas.wait(lies, 10, "the panel to lie in its node")
    box = panel.bounding_box()
    assert box
    return node, box


def _stretched(canvas: Canvas, node: int, least: Callable[[FloatRect], bool], what: str) -> None:
    Hand(canvas).stretch(node, 100, 200)
    panel = canvas.panel(node, "panel")

    def holds() -> bool:
        box = panel.bounding_box()
        return box is not None and least(box)

    canvas.wait(holds, 5, what)


def test_grows_with_the_node(canvas: Canvas) -> None:
    """All of the room, though in Nodes 2.0 the panel of a report waits below it."""
    node, before = _shown(canvas, {"minHeight": 120})
    assert before["height"] >= 110

    def grown(box: FloatRect) -> bool:
        return box["height"] - before["height"] > 180 and box["width"] - before["width"] > 80

    _stretched(canvas, node, grown, "the panel to grow")
    content = canvas.evaluate("globalThis.panelContent.offsetHeight")
    assert content - before["height"] > 170


def test_long_content_scrolls_and_a_higher_node_shows_more(canvas: Canvas) -> None:
    node, before = _shown(canvas, {"most": 60})
    assert 50 <= before["height"] <= 70
    _stretched(canvas, node, lambda box: box["height"] - before["height"] > 80, "more to be seen")


def test_the_host_s_panel_at_the_right_takes_nothing(canvas: Canvas) -> None:
    """It shows the widgets of the node that is selected, and an element has one place."""
    node, before = _shown(canvas, {"minHeight": 120})
    canvas.panel_at_right(True)
    canvas.evaluate("(id) => app.canvas.selectNode(app.graph.getNodeById(id))", node)
    canvas.page.wait_for_timeout(500)
    after = canvas.panel(node, "panel").bounding_box()
    canvas.panel_at_right(False)
    assert after and abs(after["width"] - before["width"]) < 2
    assert after["x"] < before["x"] + 200


def test_panels_are_not_saved_by_position(canvas: Canvas) -> None:
    node = _with_panel(canvas)
    saved = next(one for one in canvas.saved()["nodes"] if one["id"] == node)
    assert len(saved["widgets_values"]) == 2
    assert "panel" not in canvas.prompt()[str(node)]["inputs"]


def test_stands_in_for_a_stock_widget(canvas: Canvas) -> None:
    canvas.clear()
    node = canvas.add(NODE, values={"default_caption": "one"})
    canvas.evaluate(STAND_IN, [node, MODULE])
    assert canvas.evaluate("globalThis.value.get()") == "one"
    canvas.evaluate("globalThis.value.set('two')")
    assert canvas.prompt()[str(node)]["inputs"]["default_caption"] == "two"
    assert canvas.evaluate("globalThis.heard") == []
    canvas.set_value(node, "default_caption", "three")
    assert canvas.evaluate("globalThis.heard") == ["three"]
    saved = next(one for one in canvas.saved()["nodes"] if one["id"] == node)
    assert "three" in saved["widgets_values"]
    text = canvas.page.locator(".lg-node").first.inner_text() if canvas.mode == "nodes2" else ""
    assert "default_caption" not in text


def test_sockets_keep_their_colours_under_every_palette(canvas: Canvas) -> None:
    assert set(canvas.evaluate(COLOURS)) == {"#e0705a"}
