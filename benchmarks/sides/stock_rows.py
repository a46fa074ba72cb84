"""The stock node that loads several LoRAs in its rows, which ComfyUI has from 2026 on."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths

_MODULE, _NODE = "comfy_extras.nodes_lora_stack", "LoadLoraModel"


def multi_loader() -> Any:
    """The node's class; None where this ComfyUI has none."""
    if importlib.util.find_spec(_MODULE) is None:
        return None
    return getattr(importlib.import_module(_MODULE), _NODE, None)


def apply_rows(node: Any, model: Any, paths: Sequence[Path]) -> Any:
    """MODEL with one row for each of `paths`, which must be of one folder."""
    folder_paths.add_model_folder_path("loras", str(paths[0].parent))
    rows = [{"lora_name": path.name, "strength": 1.0, "enabled": True} for path in paths]
    return node.execute(model=model, loras=rows).result[0]
