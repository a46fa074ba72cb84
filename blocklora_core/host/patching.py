"""A merge put onto ComfyUI's MODEL and CLIP: one clone and one call to add_patches each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import keys
from ..lora import BlockLoRA, Layer, Stack
from ..merge import DEFAULTS, Merged, Options, Overlap, merge
from .handles import ComfyClip, ComfyModel
from .names import clip_weights, model_weights, on_weights
from .row_blocks import RowBlocksAdapter
from .text import with_concepts


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


def add_to(patcher: ComfyModel, stack: Stack, text: bool) -> int:
    """Add the layers of one side of a merged stack in one call; returns how many layers were patched."""
    by_weight: dict[str, list[Layer]] = {}
    for lora in stack:
        for name, layer in lora.layers.items():
            if keys.is_text(name) == text and layer.rows:
                by_weight.setdefault(name, []).append(layer)
    patches = {name: RowBlocksAdapter.of(layers) for name, layers in by_weight.items()}
    missing = set(patches) - set(patcher.add_patches(patches) if patches else ())
    if missing:
        raise NothingFitsError(f"Expected weights to patch, the host knows no {min(missing)}.")
    return sum(map(len, by_weight.values()))


def _check_shapes(lora: BlockLoRA, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, layer in lora.layers.items():
        if layer.weight_shape != shapes[name]:
            raise NothingFitsError(
                f"{lora.label}: expected {name} of shape {shapes[name]}, the file's is {layer.weight_shape}. "
                f"It was trained for another base{f' ({lora.base})' if lora.base else ''}: load that checkpoint."
            )


def resolve(stack: Stack, model: ComfyModel, clip: ComfyClip | None) -> tuple[Stack, dict[str, list[str]]]:
    """The stack with layers named by the model's weights, and each file's layers that found no weight.

    Raises NothingFitsError when a file has not one layer in common with MODEL and CLIP, or one of another shape.
    """
    sides = [model_weights(model), *([clip_weights(clip)] if clip is not None else [])]
    stems = {stem: name for side in sides for stem, name in side.stems.items()}
    shapes = {name: shape for side in sides for name, shape in side.shapes.items()}
    resolved, unused = [], {}
    for lora in stack:
        fitting, unknown = on_weights(lora, stems)
        if lora.layers and not fitting.layers:
            raise NothingFitsError(
                f"{lora.label}: none of its {len(lora.layers)} layers is in this model ({next(iter(lora.layers))}). "
                f"It was trained for {lora.base or 'another base'}: load that checkpoint."
            )
        _check_shapes(fitting, shapes)
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
    merged = merge(resolved, method, overlap, options)
    patched = model.clone()
    model_layers = add_to(patched, merged.members, text=False)
    tokens = {lora.concept.name: lora.embeddings for lora in merged.members if lora.embeddings}
    clip_layers = 0
    if clip is not None:
        clip = with_concepts(clip, tokens)
        clip_layers = add_to(clip.patcher, merged.members, text=True)
    return Applied(patched, clip, merged, model_layers, clip_layers, tuple(tokens), unused)
