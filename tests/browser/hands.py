"""A graph made as people make it: by mouse and keyboard alone, each step counted."""

from __future__ import annotations

from typing import Any

from tests.browser.canvas import Canvas

SLOT = """([id, output, name]) => {
    const node = app.graph.getNodeById(id);
    const slot = output ? node.findOutputSlot(name) : node.findInputSlot(name);
    const place = node.getConnectionPos(!output, slot);
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([place[0], place[1]]);
    const box = app.canvas.canvas.getBoundingClientRect();
    return [x + box.left, y + box.top];
}"""
IDS = "(type) => app.graph._nodes.filter((node) => node.comfyClass === type).map((node) => node.id)"


class Hands:
    """gestures: clicks, drags and texts so far."""

    def __init__(self, canvas: Canvas):
        self.canvas, self.page, self.gestures = canvas, canvas.page, 0

    def add(self, title: str, node_type: str, at: tuple[int, int]) -> int:
        """A double click on the empty canvas, the node's title, Enter. The node's id."""
        before = self._ids(node_type)
        self.page.mouse.dblclick(*at)
        field = self.page.get_by_role("dialog").locator("input").or_(self.page.locator(".p-autocomplete-input")).first
        field.wait_for()
        self.page.keyboard.type(title)
        self.page.wait_for_timeout(700)  # The host waits a moment before it searches.
        self.page.keyboard.press("Enter")
        self.canvas.wait(lambda: self._ids(node_type) != before, 10, f"a node {title}")
        self.page.wait_for_timeout(400)
        self.gestures += 1
        return next(one for one in self._ids(node_type) if one not in before)

    def link(self, source: int, output: str, target: int, name: str) -> None:
        """A drag from an output to an input."""
        start, end = (self._slot(source, True, output), self._slot(target, False, name))
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=4)
        self.page.mouse.move(*end, steps=4)
        self.page.wait_for_timeout(150)
        self.page.mouse.up()
        self.page.wait_for_timeout(150)
        self.gestures += 1

    def run(self) -> dict[str, Any]:
        """Ctrl+Enter; the history entry once all is done."""
        self.page.mouse.click(700, 880)
        self.page.keyboard.press("Control+Enter")
        self.gestures += 1
        self.canvas.wait(lambda: self.canvas.server.get("/queue")["queue_running"], 20, "a run")
        return self.canvas.idle(300)

    def _ids(self, node_type: str) -> list[int]:
        return [int(one) for one in self.canvas.evaluate(IDS, node_type)]

    def _slot(self, node: int, output: bool, name: str) -> tuple[float, float]:
        x, y = self.canvas.evaluate(SLOT, [node, output, name])
        return x, y
