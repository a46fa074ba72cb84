"""What a node can say before it runs: the same rule, and the same words, as when it does.

The host asks `validate_inputs`, and repeats the answer for each input that it names: name one, and take the others
from the queued graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..blocklora_core.host.queued import Graph


def told_before(rule: Callable[..., Any], *values: Any) -> bool | str:
    """True, or what `rule` has against `values`. Where one is None, nothing is known of it yet: it comes from another
    node."""
    if any(value is None for value in values):
        return True
    try:
        rule(*values)
    except ValueError as error:
        return str(error)
    return True


def here(graph: Graph, node: str, name: str) -> Any:
    """What stands in an input of a queued node; None where it is linked, or not known."""
    value = graph.get(node, {}).get("inputs", {}).get(name)
    return None if isinstance(value, list) else value
