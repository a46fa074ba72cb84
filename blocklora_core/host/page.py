"""Text on its way to a node's page: the one place that escapes it."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Mapping
from typing import Any

from ..files.untrusted.text import MOST_LETTERS, legible


def shortened(text: str, most: int = MOST_LETTERS) -> str:
    """`text` as our own widgets get it, which make text of it and nothing else."""
    return legible(text, most)


# Where frontends make links: of addresses, and of [[words|address]].
_LINKS = re.compile(r"[.:@/\[](?=[^\W\d_]|[/\[])")
_JOINER = "\u2060"
"""A letter of no width, at which no line breaks."""


def on_page(text: str) -> str:
    """`text`, shortened, as HTML that shows it letter by letter: frontends take progress text for HTML, and what looks
    like an address for a link."""
    return _LINKS.sub(lambda found: found[0] + _JOINER, html.escape(legible(text)))


def server() -> Any:
    """The host's server; None in scripts and tests, which have none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def announce(event: str, data: Mapping[str, Any]) -> None:
    """Send an event to every page."""
    send = getattr(server(), "send_sync", None)
    if send is not None:
        send(event, dict(data))


def tell(node_id: str | None, text: str) -> None:
    """Show a line of text in the node. Scripts and tests have no server to show it."""
    send = getattr(server(), "send_progress_text", None)
    if node_id is not None and send is not None:
        send(on_page(text), node_id)
