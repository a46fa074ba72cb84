"""ComfyUI's Dynamic VRAM in these tests: BLOCKLORA_DYNAMIC=1, and tests/dynamic on PYTHONPATH in the GPU's place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
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


def as_used(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a loaded model that Dynamic VRAM patches only as they are used."""
    import comfy.ops

    used = {}
    for name, module in model.named_modules():
        if hasattr(module, "_v"):
            device, kinds = torch.device("cpu"), {"dtype": module.weight.dtype}
            if module.bias is not None:
                kinds["bias_dtype"] = module.bias.dtype
            weight, bias, stream = comfy.ops.cast_bias_weight(module, None, device=device, offloadable=True, **kinds)
            used |= {
                f"{name}.{key}": part.clone() for key, part in (("weight", weight), ("bias", bias)) if part is not None
            }
            comfy.ops.uncast_bias_weight(module, weight, bias, stream)
    return used


def widen(checkpoint: Path, part: str) -> None:
    """Puts a part of a file into float32: there patches are not rounded at random, seeded by the time of their use."""
    state = safetensors.torch.load_file(checkpoint)
    wide = {name: tensor.float() if name.startswith(part) else tensor for name, tensor in state.items()}
    safetensors.torch.save_file(wide, checkpoint)


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit for bit; where patches are rounded at random as they are used, but for that rounding."""
    if not WANTED:
        return torch.equal(one, other)
    return one.shape == other.shape and float((one - other).norm()) <= 0.01 * float(one.norm())
