"""Which concepts a graph will bring somewhere, as far as its nodes tell before they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...concept.lora_list import parse_list
from ...concept.names import fold
from ...files.catalogue.index import known
from ..disk import lora_file
from ..queued import Graph
from .list_check import check_list

Names = list[str]


class _UnknownError(Exception):
    """Only a run will tell."""


def names_into(graph: Graph, node: str, inputs: Iterable[str]) -> tuple[str, ...] | None:
    """The concepts that reach these inputs of a node; None where that shows only in a run.

    Some may not come after all, such as those of strength 0; none is left out. Headers of files are all that is read.
    """
    asked = _Asked(graph)
    try:
        names = [name for one in inputs for name in asked.arriving(node, one)]
    except (_UnknownError, LookupError, TypeError, AttributeError, ValueError, RecursionError):
        return None
    return tuple({fold(name): name for name in names}.values())


class _Asked:
    """One graph. Each node is asked once, however many ways lead to it: their number may double with every node."""

    def __init__(self, graph: Graph):
        self.graph, self.known = graph, dict[str, Names]()

    def arriving(self, node: str, name: str) -> Names:
        link = self.graph[node]["inputs"].get(name)
        if link is None:
            return []
        before = str(link[0])
        values, kind = self.graph[before]["inputs"], str(self.graph[before]["class_type"])
        if "stack" in name and not kind.startswith("BlockLoRA") and not any(map(_is_link, values.values())):
            raise _UnknownError
        if before not in self.known:
            # Of a circle, which the host refuses.
            self.known[before] = []
            self.known[before] = self._from(before, values, kind)
        return self.known[before]

    def _from(self, node: str, values: Mapping[str, Any], kind: str) -> Names:
        links = [name for one, value in values.items() if _is_link(value) for name in self.arriving(node, one)]
        own = _TELLING[kind](values) if kind in _TELLING else []
        # A merge gives another name to the second of two that are called alike.
        if kind in _JOINING and len({*map(fold, own or links)}) < len(own or links):
            raise _UnknownError
        return _twice_at_most([*own, *links])


def _twice_at_most(names: Names) -> Names:
    """`names`; of those that are called alike two, which is all that matters to a merge."""
    found, seen = Names(), Counter[str]()
    for name in names:
        seen[fold(name)] += 1
        found += [name] if seen[fold(name)] <= 2 else []
    return found


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _loaded(values: Mapping[str, Any]) -> Names:
    if renamed := _text(values, "rename").strip():
        return [renamed]
    summary = known(lora_file(_text(values, "lora_name")))
    if isinstance(summary, str):
        raise _UnknownError
    return [summary.concept]


def _listed(values: Mapping[str, Any]) -> Names:
    text = _text(values, "files")
    told = check_list(text)
    return [told[entry.number]["concept"] for entry in parse_list(text) if entry.on]


def _trained(values: Mapping[str, Any]) -> Names:
    return [_text(values, "concept").strip()]


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name, "")
    if not isinstance(value, str):
        raise _UnknownError
    return value


_TELLING: Mapping[str, Callable[[Mapping[str, Any]], Names]] = {
    "BlockLoRALoad": _loaded,
    "BlockLoRALoader": _listed,
    "BlockLoRATrain": _trained,
}
_JOINING = ("BlockLoRALoader", "BlockLoRAStack")
