"""What a server says of its nodes, as far as a workflow file needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Info = Mapping[str, Any]
"""The answer of /object_info."""

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")

NEWER = ("BOUNDING_BOX",)
"""Sockets that only newer hosts have: left out, so that every host makes the same files."""


@dataclass(frozen=True)
class Kind:
    """A type of node: its inputs and outputs by name, name -> type, and its widgets by position, name -> default."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    widgets: Mapping[str, Any]
    controlled: frozenset[str]

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        """widgets_values of a workflow file. ValueError for a widget that is not there, or that has no default."""
        if strange := given.keys() - self.widgets.keys():
            raise ValueError(f"expected widgets among {list(self.widgets)}, got {sorted(strange)}")
        found: list[Any] = []
        for name, default in self.widgets.items():
            value = given.get(name, default)
            if value is None:
                raise ValueError(f"expected a value for {name}, which has no default")
            found += [value, "randomize"] if name in self.controlled else [value]
        return found


def kind_of(info: Info, node_type: str) -> Kind:
    """The type `node_type`. ValueError when the server has none."""
    if node_type not in info:
        raise ValueError(f"expected a node of this server, got {node_type}")
    told = info[node_type]
    found = list(inputs_of(told))
    inputs = {name: "COMBO" if isinstance(kind, list) else kind for name, kind, _ in found}
    shown = [one for one in found if inputs[one[0]] in WIDGETS and not one[2].get("forceInput")]
    widgets = {name: _default(kind, options) for name, kind, options in shown}
    controlled = frozenset(name for name, _, options in shown if _is_controlled(name, options))
    # Sockets before widgets, as the page makes them.
    inputs = {name: inputs[name] for name in sorted(inputs, key=widgets.__contains__) if inputs[name] not in NEWER}
    return Kind(inputs, dict(zip(told["output_name"], told["output"], strict=True)), widgets, controlled)


def inputs_of(told: Info) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """(name, type or list of choices, options) of each input of one node."""
    for part in ("required", "optional"):
        for name, (kind, *rest) in told["input"].get(part, {}).items():
            yield name, kind, rest[0] if rest else {}


def _is_controlled(name: str, options: Mapping[str, Any]) -> bool:
    return bool(options.get("control_after_generate", name in ("seed", "noise_seed")))


_EMPTY = {"STRING": "", "INT": 0, "FLOAT": 0.0, "BOOLEAN": False}


def _default(kind: Any, options: Mapping[str, Any]) -> Any:
    if "default" in options:
        return options["default"]
    if not isinstance(kind, list) and kind != "COMBO":
        return _EMPTY[kind]
    choices = kind if isinstance(kind, list) else options.get("options", [])
    # Lists of files are each machine's own.
    return choices[0] if choices and not any(isinstance(one, str) and "." in one for one in choices) else None
