"""Text on its way to a node's page: the one place that escapes it."""

from __future__ import annotations

import html
import sys

from ..files.untrusted.text import legible


def on_page(text: str) -> str:
    """`text`, shortened, as HTML that shows it letter by letter: frontends take progress text for HTML."""
    return html.escape(legible(text))


def tell(node_id: str | None, text: str) -> None:
    """Show a line of text in the node. Scripts and tests have no server to show it."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    send = getattr(server, "send_progress_text", None)
    if node_id is not None and send is not None:
        send(on_page(text), node_id)
