"""What a server of this ComfyUI answers to /object_info, without a server."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from comfy_extras import nodes_primitive

import nodes


def object_info(pack: ModuleType) -> dict[str, Any]:
    """The nodes of ComfyUI's own nodes.py, texts as nodes, and those of the pack."""
    found = {name: _stock(node) for name, node in nodes.NODE_CLASS_MAPPINGS.items()}
    for node in (nodes_primitive.String, nodes_primitive.StringMultiline, *pack.NODES):
        found[node.GET_SCHEMA().node_id] = node.GET_NODE_INFO_V1()
    answer: dict[str, Any] = json.loads(json.dumps(found))
    return answer


def _stock(node: Any) -> dict[str, Any]:
    outputs = node.RETURN_TYPES
    return {"input": node.INPUT_TYPES(), "output": outputs, "output_name": getattr(node, "RETURN_NAMES", outputs)}
