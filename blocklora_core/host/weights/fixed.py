"""Concepts on the activation path of a loaded model."""

from __future__ import annotations

from torch import nn

from ...concept import keys
from ...concept.concept import BlockLoRA
from ...concept.layer import ShapeError
from ...training.adapters.fixed import FixedLayer, FixedLayers
from ...training.port import AdaptedLayer
from ..comfy import ComfyClip, ComfyModel

_WEIGHT = ".weight"


def modules_of(model: ComfyModel, clip: ComfyClip | None) -> dict[str, nn.Module]:
    """Weight name -> module, of MODEL and CLIP."""
    sides = [model.model, *([clip.cond_stage_model] if clip is not None else [])]
    return {f"{name}{_WEIGHT}": module for side in sides for name, module in side.named_modules()}


def fixed_layers(lora: BlockLoRA, modules: dict[str, nn.Module], text: bool) -> FixedLayers:
    """The layers of one side of `lora`, which names them by weight (see patching.resolve).

    ValueError for a layer that is neither a Linear's nor a convolution's.
    """
    chosen = {name: layer for name, layer in lora.layers.items() if keys.is_text(name) == text and layer.rows}
    found = []
    for name, layer in chosen.items():
        module = AdaptedLayer.of(modules[name]) if name in modules else None
        if module is None:
            raise ValueError(
                f"{lora.label}: expected changes of linear layers and convolutions only, got one of {name}. "
                "Merge this file with BlockLoRA Merge instead."
            )
        try:
            found.append(FixedLayer(module, layer))
        except ShapeError as error:
            raise ValueError(f"{lora.label}: {name}: {error}") from error
    return FixedLayers(found)
