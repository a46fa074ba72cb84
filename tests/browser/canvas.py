"""ComfyUI's page as the tests use it: nodes, widgets, our panels, the queue."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, Route

from launcher.errors import LauncherError
from launcher.server import Server

# What the host logs of itself (frontend 1.32, of a setting; 1.49, as it starts, of app.rootGraph, which is not for us),
# or of the network that a test has not.
NOISE = re.compile(
    r"net::ERR_|Failed to load resource|firebase|Network Error|reading 'id'\)\s+at onChange \(.*/assets/|"
    r"^ComfyApp graph accessed before initialization$",
    re.IGNORECASE,
)
# What a frontend of 1.58 says of the one route that it asks for and that ComfyUI 0.3.75 lacks.
NO_JOBS = re.compile(r"Failed to fetch jobs: 404\b")

ADD = """([type, x, y, values]) => {
    const node = LiteGraph.createNode(type);
    if (!node) throw new Error(`no node ${type}`);
    node.pos = [x, y];
    app.graph.add(node);
    for (const [name, value] of Object.entries(values)) {
        const widget = node.widgets.find((one) => one.name === name);
        widget.value = value;
        widget.callback?.(value);
    }
    return node.id;
}"""
WIDGET = "([id, name]) => app.graph.getNodeById(id).widgets.find((one) => one.name === name)"
LINK = """([from, output, to, input]) => {
    const [source, target] = [app.graph.getNodeById(from), app.graph.getNodeById(to)];
    source.connect(source.findOutputSlot(output), target, target.findInputSlot(input));
}"""


# What a test may leave open: the host's dialogs and messages close by their buttons.
CLOSE = """() => {
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
    for (const name of ["p-dialog-close-button", "p-toast-close-button"])
        for (const button of document.getElementsByClassName(name)) button.click();
}"""


def _lacks(server: Server, path: str) -> bool:
    try:
        server.get(path)
    except LauncherError as error:
        return "answered 404" in str(error)
    return False


RIGHT_PANEL = """async (open) => {
    try {
        await app.extensionManager.setting.set("Comfy.RightSidePanel.IsOpen", open);
    } catch {}
}"""


class Canvas:
    """One page. `errors` collects what it logs as an error."""

    def __init__(self, page: Page, server: Server, mode: str):
        self.page, self.server, self.mode = page, server, mode
        self.errors: list[str] = []
        self.failures: int | None = None
        self.lacks_jobs = _lacks(server, "/api/jobs")
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._failed(str(error)))
        page.route(lambda url: not url.startswith(("blob:", "data:", server.url)), self._refuse)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not NOISE.search(message.text):
            self._failed(message.text)

    def _failed(self, text: str) -> None:
        if not (self.lacks_jobs and NO_JOBS.search(text)):
            self.errors.append(text)

    def _refuse(self, route: Route) -> None:
        route.abort()

    def open(self) -> None:
        """Loads the page, or loads it again, and waits for the graph."""
        self.page.goto(self.server.url)
        self.ready()

    def panel_at_right(self, is_open: bool) -> None:
        """Opens or closes the host's own panel of the node that is selected; older frontends have none."""
        self.evaluate(RIGHT_PANEL, is_open)

    def renew(self, failures: int) -> None:
        """An empty canvas again; the page is opened when it is not, or when a test has failed since the last time."""
        if failures == self.failures:
            self.page.evaluate(CLOSE)
        else:
            self.open()
        self.failures = failures
        self.clear()
        self.idle()
        self.errors.clear()

    def ready(self) -> None:
        """Waits until the page has its graph and our nodes."""
        self.page.wait_for_function(
            "Boolean(window.LiteGraph?.registered_node_types?.BlockLoRATrain && window.app?.graph)"
        )
        # The host loads its last workflow, or the default one, a moment after it has registered the nodes.
        self.page.wait_for_function("Boolean(window.app.extensionManager?.workflow?.activeWorkflow)")
        # What happens before the page listens is never told.
        self.page.wait_for_function("comfyAPI.api.api.socket?.readyState === WebSocket.OPEN")
        self.page.wait_for_timeout(500)

    def clear(self) -> None:
        """No nodes, the origin in the upper left corner, clear of the menus, scale 1."""
        self.page.evaluate("() => { app.graph.clear(); app.canvas.ds.reset(); app.canvas.ds.offset = [90, 180]; }")

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """The value of a JavaScript expression or function in the page."""
        return self.page.evaluate(script, argument)

    def add(self, node_type: str, at: tuple[int, int] = (0, 0), values: Mapping[str, Any] | None = None) -> int:
        """Adds a node with widget values and returns its id."""
        return int(self.page.evaluate(ADD, [node_type, *at, dict(values or {})]))

    def link(self, source: int, output: str, target: int, name: str) -> None:
        """Connects an output to an input, both by name."""
        self.page.evaluate(LINK, [source, output, target, name])

    def value(self, node: int, name: str) -> Any:
        """The value of a widget."""
        return self.page.evaluate(f"(at) => ({WIDGET})(at)?.value", [node, name])

    def set_value(self, node: int, name: str, value: Any) -> None:
        """Gives a widget a value, as another extension would."""
        script = f"(at) => {{ const one = ({WIDGET})(at); one.value = at[2]; one.callback?.(at[2]); }}"
        self.page.evaluate(script, [node, name, value])

    def panel(self, node: int, name: str) -> Locator:
        """The element of one of our panels, once the node has it."""
        find = f"(at) => ({WIDGET})(at)?.element?.dataset.panel"
        number = self.page.wait_for_function(find, arg=[node, name]).json_value()
        return self.page.locator(f'[data-panel="{number}"]')

    def saved(self) -> Any:
        """The workflow as it would be saved."""
        return self.page.evaluate("app.graph.serialize()")

    def prompt(self) -> Any:
        """The prompt as it would be queued, in API form."""
        return self.page.evaluate("app.graphToPrompt().then((one) => one.output)")

    def load(self, workflow: Mapping[str, Any]) -> None:
        """Opens a workflow."""
        self.page.evaluate("(workflow) => app.loadGraphData(workflow)", dict(workflow))

    def queue(self) -> None:
        """Presses Run."""
        self.page.evaluate("app.queuePrompt(0, 1)")

    def idle(self, seconds: float = 120.0) -> dict[str, Any]:
        """Waits until nothing runs or waits; the history entry of the last prompt."""
        self.wait(lambda: not any(self.server.get("/queue").values()), seconds, "the queue to be empty")
        history: dict[str, Any] = self.server.get("/history")
        return list(history.values())[-1] if history else {}

    def wait(self, holds: Callable[[], Any], seconds: float = 30.0, what: str = "it") -> None:
        """Waits, while the page goes on, until `holds` gives something true."""
        limit = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < limit, f"waited {seconds:.0f} s for {what}"
            self.page.wait_for_timeout(100)
