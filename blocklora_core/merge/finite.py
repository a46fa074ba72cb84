"""Merges whose numbers overflow are errors, never black pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ..concept import keys
from ..concept.concept import BlockLoRA, Stack
from ..concept.layer import Layer
from .methods.sums import strength_of

FLOAT32 = torch.finfo(torch.float32).max


def check_inputs(stack: Stack) -> None:
    """ValueError, which names the concept, where a strength makes a change larger than float32 holds."""
    for lora in stack:
        most = max(abs(lora.strength), abs(lora.effective_strength_clip))
        for name, layer in () if _surely(lora, FLOAT32, most) else lora.layers.items():
            _check(lora.label, name, layer, strength_of(lora, keys.is_text(name)))
        for name, adapter in lora.adapters.items():
            if not math.isfinite(adapter.strength * strength_of(lora, keys.is_text(name))):
                raise _error(lora.label, name)


def check_result(members: Stack, given: Stack) -> None:
    """ValueError, which names the concepts, where a method made of `given` what is not finite."""
    labels = {lora.concept.name: lora.label for lora in given}
    everybody = ", ".join(labels.values())
    for lora in members:
        for name, layer in () if _surely(lora, FLOAT32) else lora.layers.items():
            _check(labels.get(lora.concept.name, everybody), name, layer, 1.0)


def _surely(lora: BlockLoRA, limit: float, factor: float = 1.0) -> bool:
    """Whether bounds that the layers know of themselves already tell that no number is larger than `limit`."""
    return lora.reach * abs(factor) <= limit


def stays_within(limit: float, layer: Layer, factor: float = 1.0) -> bool:
    """Whether no change of a weight's number is larger than `limit`, in float64; not so where one is no number."""
    if not layer.rows:
        return True
    # No product is needed where even the largest factors together stay within.
    if abs(layer.scale * factor) * layer.reach <= limit:
        return True
    up, down = layer.up.flatten(1).double(), layer.down.flatten(1).double()
    # A few rows at a time: the whole change is as large as the weight.
    rows = max(1, 2**22 // down.shape[1])
    return all(abs(layer.scale * factor) * _largest(part @ down) <= limit for part in up.split(rows))


def _largest(values: Tensor) -> float:
    return float(values.abs().amax())


def _check(label: str, name: str, layer: Layer, strength: float) -> None:
    if not _fits(layer, strength):
        raise _error(label, name)


def _fits(layer: Layer, strength: float) -> bool:
    factor = layer.scale * strength
    return math.isfinite(factor) and stays_within(FLOAT32, layer, strength)


def _error(label: str, name: str) -> ValueError:
    return ValueError(
        f"{label}: expected a change of {name} in numbers that float32 holds, got infinite ones or none. Lower its "
        "strength; where that is ordinary, its training diverged: train or download it again."
    )


def check_weights(stack: Iterable[BlockLoRA], limits: dict[str, float]) -> None:
    """ValueError, which names the concept, where a change is larger than the model's numbers (weight -> largest)."""
    least = min(limits.values(), default=math.inf)
    for lora in stack:
        for name, layer in () if _surely(lora, least) else lora.layers.items():
            if name in limits and not stays_within(limits[name], layer):
                raise ValueError(
                    f"{lora.label}: expected a change of {name} of at most {limits[name]:g}, as its dtype holds, got "
                    "more. Lower its strength; where that is ordinary, its training diverged."
                )
