"""ComfyUI's Dynamic VRAM in these tests: BLOCKLORA_DYNAMIC=1, and tests/dynamic on PYTHONPATH in the GPU's place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

WANTED = bool(os.environ.get("BLOCKLORA_DYNAMIC"))


def _enable(enabled: bool) -> None:
    import comfy.memory_management

    comfy.memory_management.aimdo_enabled = enabled


def enable() -> None:
    """As main.py does it for --enable-dynamic-vram: from now on each model is loaded by ModelPatcherDynamic."""
    import comfy.model_patcher

    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    _enable(True)


@contextmanager
def with_weights() -> Iterator[None]:
    """A model that is built here has weights at once; under Dynamic VRAM it has none before a file is read."""
    if WANTED:
        _enable(False)
    try:
        yield
    finally:
        if WANTED:
            _enable(True)


def patcher_of(model: Any) -> Any:
    """The MODEL that the host makes of a model on the CPU: this run's kind of patcher."""
    import comfy.model_patcher

    kind = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return kind(model, torch.device("cpu"), torch.device("cpu"))
