"""A person at ComfyUI's page: nodes searched for, links dragged, boxes drawn, by mouse and keyboard, each counted."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping

from playwright.sync_api import Locator, expect
from playwright.sync_api import TimeoutError as TookTooLong

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
CORNER = """(id) => {
    const shown = document.querySelector(`.lg-node[data-node-id="${id}"]`);
    if (shown) {
        const { right, bottom } = shown.getBoundingClientRect();
        return [right - 3, bottom - 3];
    }
    const node = app.graph.getNodeById(id);
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0], node.pos[1] + node.size[1]]);
    const { left, top } = app.canvas.canvas.getBoundingClientRect();
    return [x + left - 3, y + top - 3];
}"""
# Of a node's title: the middle, and a place that nothing of the page lies over.
TITLE_BAR = """(id) => {
    const { pos, size } = app.graph.getNodeById(id);
    const shown = document.querySelector(`.lg-node[data-node-id="${id}"]`);
    const { left, top } = app.canvas.canvas.getBoundingClientRect();
    const at = (share) => {
        const [x, y] = app.canvas.ds.convertOffsetToCanvas([pos[0] + size[0] * share, pos[1] - 10]);
        return [x + left, y + top];
    };
    const free = [0.5, 0.3, 0.7, 0.2, 0.8, 0.9, 0.95].map(at).find((point) => {
        const hit = document.elementFromPoint(...point);
        return shown ? shown.contains(hit) : hit === app.canvas.canvas;
    });
    return [at(0.5), free ?? at(0.5)];
}"""
HANGING = "app.canvas.state.ghostNodeId"
SEARCHES = "() => document.activeElement?.tagName === 'INPUT'"
IDS = "(type) => app.graph.nodes.filter((node) => node.type === type).map((node) => node.id)"
# In the search, the field itself and what it filters by are options, too.
FOUND = "[role=option]:not(:has(input), [data-pc-section=chipitem])"
TITLE = "(type) => LiteGraph.registered_node_types[type].title"
DROP = """([element, files]) => {
    const transfer = new DataTransfer();
    for (const [name, data] of files) {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type: name.endsWith("txt") ? "text/plain" : "image/png" }));
    }
    element.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""
FRAME = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
FAR = 40
Point = tuple[float, float]


class Hand:
    """gestures: a node that was searched for and put down, a drag, a click, a text that was typed.

    acts: the same by hand alone, each press of the mouse (a double-click is one) and each run of keys.
    """

    def __init__(self, canvas: Canvas):
        self.canvas, self.page = canvas, canvas.page
        self.gestures = self.acts = 0

    def add(self, node_type: str, at: Point) -> int:
        """Double-click on empty canvas, the node's name, Enter."""
        self.page.mouse.dblclick(*at)
        try:
            self.page.wait_for_function(SEARCHES, timeout=10_000)
        except TookTooLong:
            # A page that is busy may take the two clicks for single ones.
            self.page.mouse.dblclick(*at)
        return self._chosen(node_type, at)

    def pull(self, node: int, output: str, at: Point, node_type: str) -> int:
        """A link dragged onto empty canvas, the name of the node to put there, Enter."""
        self._drag(self._slot(node, output, is_input=False), at)
        search = self.page.locator(".litecontextmenu").get_by_text("Search", exact=True)
        # ComfyUI 0.33 offers a menu first.
        self.page.wait_for_function(f"({SEARCHES})() || document.querySelector('.litecontextmenu')")
        if search.count():
            search.click()
        return self._chosen(node_type, at)

    def wire(self, node: int, output: str, to: int, name: str) -> None:
        """A link dragged from an output to an input."""
        self._drag(self._slot(node, output, is_input=False), self._slot(to, name, is_input=True))
        self._done()

    def stretch(self, node: int, wider: float, higher: float) -> None:
        """A node's lower right corner, dragged."""
        x, y = self.canvas.evaluate(CORNER, node)
        self._drag((x, y), (x + wider, y + higher))
        self._done()

    def draw(self, sheet: Locator, start: Point, end: Point) -> None:
        """A drag on an element, between shares of its sides."""
        box = sheet.bounding_box()
        assert box
        corners = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
        self._drag(*corners)
        self._done()

    def click(self, target: Locator, shift: bool = False) -> None:
        target.click(modifiers=["Shift"] if shift else [])
        self._done()

    def type(self, field: Locator, text: str) -> None:
        field.click()
        self.page.keyboard.type(text)
        self._done(acts=2)

    def retype(self, field: Locator, text: str) -> None:
        """Another text in place of the one that is there. A list is not clicked: keys choose in it, too."""
        field.focus()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Tab")
        self._done()

    def drop(self, element: Locator, files: Mapping[str, bytes]) -> None:
        """Files from the desktop, by name."""
        encoded = [[name, base64.b64encode(data).decode()] for name, data in files.items()]
        self.page.evaluate(DROP, [element.element_handle(), encoded])
        self._done()

    def press(self, keys: str) -> None:
        self.page.keyboard.press(keys)
        self._done()

    def _slot(self, node: int, name: str, is_input: bool) -> Point:
        x, y = self.canvas.evaluate(SLOT, [node, name, is_input])
        return x, y

    def _drag(self, start: Point, end: Point) -> None:
        """Nodes 2.0 takes one move a frame, and follows no mouse that has left the node before the first."""
        length = max(math.dist(start, end), 1.0)
        self.page.mouse.move(*start)
        self.page.mouse.down()
        for way in (min(4 / length, 1.0), 0.5, 1.0 - 1 / length, 1.0):
            at = (start[side] + way * (end[side] - start[side]) for side in (0, 1))
            self.page.mouse.move(*at, steps=1 if way < 0.5 else 4)
            self.page.evaluate(FRAME)
        self.page.mouse.up()

    def _chosen(self, node_type: str, at: Point) -> int:
        """Types the name under which the host lists the node, which differs between hosts."""
        title, before = str(self.canvas.evaluate(TITLE, node_type)), self._nodes(node_type)
        self.page.wait_for_function(SEARCHES)
        self.page.keyboard.type(title)
        expect(self.page.locator(FOUND).first).to_contain_text(title)
        # What was listed before may begin with it, too: the search marks its first a moment after the last key.
        self.page.wait_for_timeout(300)
        self.page.keyboard.press("Enter")
        self.canvas.wait(lambda: self._nodes(node_type) - before, what=f"a node {title}")
        node = (self._nodes(node_type) - before).pop()
        hangs = bool(self.canvas.evaluate("Boolean(app.canvas.startGhostPlacement)"))
        if hangs:
            self._put_down(node, at)
        self._done(acts=3 if hangs else 2)
        return node

    def _put_down(self, node: int, at: Point) -> None:
        """In ComfyUI 0.33 a new node hangs on the mouse until a click, which the search may still be in the way of."""
        self.page.wait_for_function(f"() => {HANGING} != null")

        def lies() -> bool:
            self.page.mouse.click(*at)
            self.page.wait_for_timeout(300)
            return bool(self.canvas.evaluate(f"{HANGING} == null"))

        self.canvas.wait(lies, what="the node to be put down")
        # In Nodes 2.0, after a link was dragged, it hung where the mouse was before that.

        def near() -> bool:
            middle, free = self.canvas.evaluate(TITLE_BAR, node)
            if math.dist(middle, at) <= FAR:
                return True
            self._drag(free, (free[0] + at[0] - middle[0], free[1] + at[1] - middle[1]))
            self.page.wait_for_timeout(300)
            return False

        self.canvas.wait(near, what="the node to be where it was put")

    def _nodes(self, node_type: str) -> set[int]:
        return set(map(int, self.canvas.evaluate(IDS, node_type)))

    def _done(self, acts: int = 1) -> None:
        self.gestures += 1
        self.acts += acts
        self.page.wait_for_timeout(200)
