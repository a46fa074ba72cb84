"""The stack that a graph will bring to a node, as far as it can be told before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...blocklora_core.concept.concept import Stack
from ...blocklora_core.files.catalogue.outline import outline
from ...blocklora_core.host.disk import lora_file
from ...blocklora_core.host.queued import Graph
from .files import BlockLoRAStack, at_strength


class _UnknownError(Exception):
    """Only a run will tell."""


def stack_into(graph: Graph, node: str) -> Stack | None:
    """The row blocks that reach the input `stack`, without their numbers; None where anything else may come with them."""
    try:
        return _stack(graph, graph[node]["inputs"]["stack"])
    except (_UnknownError, LookupError, TypeError, ValueError):
        return None


def _stack(graph: Graph, link: Any) -> Stack:
    before = graph[str(link[0])]
    values: Mapping[str, Any] = before["inputs"]
    if before["class_type"] == "BlockLoRALoad":
        return _loaded(**values)
    if before["class_type"] != "BlockLoRAStack":
        raise _UnknownError
    inputs = {
        name: _stack(graph, value) if name.startswith("stack") else float(value) for name, value in values.items()
    }
    found: Stack = BlockLoRAStack.execute(**inputs).args[0]
    return found


def _loaded(lora_name: str, strength: float, rename: str = "", clip_ratio: float = 1.0) -> Stack:
    lora = outline(lora_file(lora_name))
    if lora is None:
        raise _UnknownError
    return (at_strength(lora, float(strength), rename, float(clip_ratio)),)
