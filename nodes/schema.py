"""One schema for old and new hosts: keyword arguments that the host does not know are left out."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..blocklora_core.concept.concept import Stack
from ..blocklora_core.files.shown import trigger_words

MENU: dict[str, str] = {}
"""Where each node stands in the menu; the rooms say so once they are all there."""

StackType = io.Custom("BLOCK_LORA_STACK")
SettingsType = io.Custom("BLOCK_LORA_TRAIN_SETTINGS")
ReferencesType = io.Custom("BLOCKLORA_REFERENCES")
RegionsType = io.Custom("BLOCKLORA_REGIONS")
ComposerOptionsType = io.Custom("BLOCKLORA_COMPOSER_OPTIONS")


def known(function: Any, **arguments: Any) -> dict[str, Any]:
    """The arguments among `arguments` that `function` takes."""
    accepted = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in accepted}


def schema(node_id: str, display_name: str, **fields: Any) -> io.Schema:
    fields = {"category": MENU[node_id], **fields}
    return io.Schema(node_id=node_id, display_name=display_name, **known(io.Schema.__init__, **fields))


def shown(
    report: str, stack: Stack = (), warnings: Iterable[str] = (), picture: torch.Tensor | None = None
) -> dict[str, Any]:
    """What a node shows of itself: its report, what to write in prompts, warnings, and a picture (1, H, W, 3).

    The page's own panel draws it (web/js/reports.js). warnings: lines of the report, or texts beside it.
    """
    image = {} if picture is None else ui.PreviewImage(picture).as_dict()
    names = tuple(trigger_words(lora) or lora.concept.name for lora in stack)
    return {**image, "text": (report,), "blocklora_names": names, "blocklora_warnings": tuple(warnings)}


def holding(report: str, *signs: str) -> list[str]:
    """The lines of a report that hold one of the signs."""
    return [line for line in report.splitlines() if any(sign in line for sign in signs)]


def node_id(node: Any) -> str | None:
    """The id of a running node, for its progress; None when it was called by hand."""
    return getattr(node.hidden, "unique_id", None)


def first(value: Any) -> Any:
    """What an input list begins with, or the value of a node that has none."""
    return value[0] if isinstance(value, list) and value else value


def workflow_id(node: Any) -> str:
    """The id of the workflow that the page queued, "" for a prompt that comes without one."""
    workflow = (first(getattr(node.hidden, "extra_pnginfo", None)) or {}).get("workflow") or {}
    return str(workflow.get("id") or "")


def texts_of(node: Any, ours: bool) -> list[str]:
    """All texts written into nodes of the running graph: into those of this pack, or into the others."""
    graph = getattr(node.hidden, "prompt", None) or {}
    inputs = (one["inputs"] for one in graph.values() if one["class_type"].startswith("BlockLoRA") == ours)
    return [text for values in inputs for text in values.values() if isinstance(text, str)]


def newer(kind: str, name: str, **fields: Any) -> list[Any]:
    """A socket of a kind that only newer hosts have; none on others.

    Never the host's own input of that kind: it brings a default, which programs that make prompts of workflows fill in.
    Nor a widget, which the page makes of the type's name, and whose value would be taken for a link's.
    """
    found = getattr(io, kind, None)
    return [io.Custom(found.io_type).Input(name, extra_dict={"forceInput": True}, **fields)] if found else []


def advanced(kind: Any, name: str, **fields: Any) -> Any:
    """An input that newer hosts fold away."""
    return kind.Input(name, **known(kind.Input.__init__, **{**fields, "advanced": True}))
