"""A person at ComfyUI's page: nodes searched for, links dragged, boxes drawn, by mouse and keyboard, each counted."""

from __future__ import annotations

from contextlib import suppress

from playwright.sync_api import Locator
from playwright.sync_api import TimeoutError as SlowError

from tests.browser.canvas import Canvas

SLOT = """([id, name, isInput]) => {
    const node = app.graph.getNodeById(id);
    const slot = isInput ? node.findInputSlot(name) : node.findOutputSlot(name);
    const shown = document.querySelector(`[data-slot-key="${id}-${isInput ? "in" : "out"}-${slot}"]`);
    if (shown) {
        const { left, top, width, height } = shown.getBoundingClientRect();
        return [left + width / 2, top + height / 2];
    }
    const [x, y] = app.canvas.ds.convertOffsetToCanvas(node.getConnectionPos(isInput, slot));
    const { left, top } = app.canvas.canvas.getBoundingClientRect();
    return [x + left, y + top];
}"""
IDS = "(type) => app.graph.nodes.filter((node) => node.type === type).map((node) => node.id)"
Point = tuple[float, float]


class Hand:
    """gestures: a node that was searched for, a drag, a click, a text that was typed."""

    def __init__(self, canvas: Canvas):
        self.canvas, self.page = canvas, canvas.page
        self.gestures = 0

    def add(self, node_type: str, title: str, at: Point) -> int:
        """Double-click on empty canvas, the node's name, Enter."""
        self.page.mouse.dblclick(*at)
        return self._chosen(node_type, title)

    def pull(self, node: int, output: str, at: Point, node_type: str, title: str) -> int:
        """A link dragged onto empty canvas, the name of the node to put there, Enter."""
        self._drag(self._slot(node, output, is_input=False), at)
        return self._chosen(node_type, title)

    def wire(self, node: int, output: str, to: int, name: str) -> None:
        """A link dragged from an output to an input."""
        self._drag(self._slot(node, output, is_input=False), self._slot(to, name, is_input=True))
        self._done()

    def draw(self, sheet: Locator, start: Point, end: Point) -> None:
        """A drag on an element, between shares of its sides."""
        box = sheet.bounding_box()
        assert box
        corners = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
        self._drag(*corners)
        self._done()

    def click(self, target: Locator) -> None:
        target.click()
        self._done()

    def type(self, field: Locator, text: str) -> None:
        field.click()
        self.page.keyboard.type(text)
        self._done()

    def press(self, keys: str) -> None:
        self.page.keyboard.press(keys)
        self._done()

    def _slot(self, node: int, name: str, is_input: bool) -> Point:
        x, y = self.canvas.evaluate(SLOT, [node, name, is_input])
        return x, y

    def _drag(self, start: Point, end: Point) -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=4)
        self.page.mouse.move(*end, steps=4)
        self.page.mouse.up()

    def _chosen(self, node_type: str, title: str) -> int:
        before = set(self.canvas.evaluate(IDS, node_type))
        self.page.wait_for_timeout(400)
        self.page.keyboard.type(title)
        with suppress(SlowError):
            self.page.get_by_role("option").filter(has_text=title).first.wait_for(timeout=8000)
        self.page.wait_for_timeout(300)
        self.page.keyboard.press("Enter")
        self.canvas.wait(lambda: set(self.canvas.evaluate(IDS, node_type)) - before, what=f"a node {title}")
        self._done()
        return int((set(self.canvas.evaluate(IDS, node_type)) - before).pop())

    def _done(self) -> None:
        self.gestures += 1
        self.page.wait_for_timeout(200)
