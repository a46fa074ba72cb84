"""A merge put onto ComfyUI's MODEL and CLIP: one clone and one call to add_patches each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...concept.adapters import Adapter
from ...concept.concept import BlockLoRA, Stack
from ...concept.layer import Layer, ShapeError
from ...merge import DEFAULTS, Merged, Options, Overlap, merge
from ..comfy import ComfyClip, ComfyModel
from ..text.layerwise import read_layerwise
from ..text.tokens import layers_of, with_concepts
from .adapters import as_layer, on_model, patch_of
from .names import Weights, on_weights, weights_in, weights_of
from .reweighting import adopt


@dataclass(frozen=True)
class Applied:
    """A patched MODEL and CLIP, and what was done."""

    model: ComfyModel
    clip: ComfyClip | None
    merged: Merged
    model_layers: int
    clip_layers: int
    tokens: tuple[str, ...]
    unused: Mapping[str, list[str]] = field(default_factory=dict)


class NothingFitsError(ValueError):
    """A file has no layer that the connected model has."""


def add_to(patcher: ComfyModel, stack: Stack) -> int:
    """Add the layers whose weights `patcher`'s model owns in one call; returns how many layers were patched."""
    own = weights_in(patcher).shapes
    by_weight: dict[str, list[Layer | Adapter]] = {}
    for lora in stack:
        for name, layer in lora.layers.items():
            if layer.rows and name in own:
                by_weight.setdefault(name, []).append(layer)
        for name, adapter in lora.adapters.items():
            if name in own:
                by_weight.setdefault(name, []).append(adapter)
    patches = {name: patch_of(changes) for name, changes in by_weight.items()}
    missing = set(patches) - set(patcher.add_patches(patches) if patches else ())
    if missing:
        raise NothingFitsError(f"Expected weights to patch, the host knows no {min(missing)}.")
    return sum(map(len, by_weight.values()))


def _on_weights(lora: BlockLoRA, weights: Weights) -> tuple[BlockLoRA, list[str]]:
    try:
        fitting, unknown = on_weights(lora, weights)
        adapters, others = on_model(lora, weights)
        return fitting.with_adapters(adapters), [*unknown, *others]
    except ShapeError as error:
        base = f" ({lora.base})" if lora.base else ""
        raise NothingFitsError(
            f"{lora.label}: {error} It was trained for another base{base}: load that checkpoint."
        ) from error


def resolve(stack: Stack, model: ComfyModel, clip: ComfyClip | None) -> tuple[Stack, dict[str, list[str]]]:
    """The stack with layers named by the model's weights, and each file's layers that found no weight.

    Raises NothingFitsError when a file has not one layer in common with MODEL and CLIP, or one of another shape.
    """
    weights = weights_of(model, clip)
    resolved, unused = [], {}
    for lora in stack:
        fitting, unknown = _on_weights(lora, weights)
        stems = [*lora.layers, *lora.adapters]
        if stems and not fitting.layers and not fitting.adapters:
            raise NothingFitsError(
                f"{lora.label}: none of its {len(stems)} layers is in this model ({stems[0]}). "
                f"It was trained for {lora.base or 'another base'}: load that checkpoint."
            )
        resolved.append(fitting)
        if unknown:
            unused[lora.label] = unknown
    return tuple(resolved), unused


def apply_merge(
    stack: Stack,
    model: ComfyModel,
    clip: ComfyClip | None,
    method: str = "auto",
    overlap: Overlap = "error",
    options: Options = DEFAULTS,
) -> Applied:
    """Merge `stack` into clones of MODEL and CLIP (which may be None); the ones given are not touched."""
    resolved, unused = resolve(stack, model, clip)
    merged = merge(resolved, method, overlap, replace(options, device=model.load_device), as_layer)
    patched = model.clone()
    adopt(patched)
    model_layers = add_to(patched, merged.members)
    tokens = {lora.concept.name: lora.embeddings for lora in merged.members if lora.embeddings}
    clip_layers = 0
    layers = layers_of(vectors for parts in tokens.values() for vectors in parts.values())
    if layers > 1:
        read_layerwise(patched, layers)
    if clip is not None:
        clip = with_concepts(clip, tokens)
        adopt(clip.patcher)
        clip_layers = add_to(clip.patcher, merged.members)
    return Applied(patched, clip, merged, model_layers, clip_layers, tuple(tokens), unused)
