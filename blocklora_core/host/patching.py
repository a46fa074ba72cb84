"""A merge put onto ComfyUI's MODEL and CLIP: one clone and one call to add_patches each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import comfy.weight_adapter
from torch import Tensor

from .. import keys
from ..lora import BlockLoRA, Layer, Stack
from ..merge import Merged, Overlap, merge
from ..rows import all_rows, is_strided, segments
from .handles import ComfyClip, ComfyModel
from .names import clip_stems, model_stems, on_weights
from .text import with_concepts

PatchKey = str | tuple[str, tuple[int, int, int]]
"""A weight, or (weight, (dim, start, length)): some of its rows."""


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


def _adapter(layer: Layer, up: Tensor) -> comfy.weight_adapter.LoRAAdapter:
    alpha = layer.scale * layer.rank
    return comfy.weight_adapter.LoRAAdapter(set(), (up, layer.down, alpha, None, None, None))


def _patches_of(name: str, layer: Layer) -> list[tuple[PatchKey, comfy.weight_adapter.LoRAAdapter]]:
    """(key, adapter) pairs: one per run of neighbouring rows; strided rows as one dense adapter."""
    if layer.rows == all_rows(layer.out_features):
        return [(name, _adapter(layer, layer.up))]
    if is_strided(layer.rows):
        return [(name, _adapter(layer, layer.full_up()))]
    patches: list[tuple[PatchKey, comfy.weight_adapter.LoRAAdapter]] = []
    at = 0
    for start, length in segments(layer.rows):
        patches.append(((name, (0, start, length)), _adapter(layer, layer.up[at : at + length])))
        at += length
    return patches


def add_to(patcher: ComfyModel, stack: Stack, text: bool) -> int:
    """Add the layers of one side of a merged stack; returns how many layers were patched.

    Several patches of the very same rows cannot share a dict, so they go into further calls; with disjoint blocks
    there is one.
    """
    rounds: list[dict[PatchKey, comfy.weight_adapter.LoRAAdapter]] = []
    layers = 0
    for lora in stack:
        for name, layer in lora.layers.items():
            if keys.is_text(name) != text or not layer.rows:
                continue
            layers += 1
            for key, adapter in _patches_of(name, layer):
                free = next((patches for patches in rounds if key not in patches), None)
                if free is None:
                    rounds.append(free := {})
                free[key] = adapter
    for patches in rounds:
        missing = set(patches) - set(patcher.add_patches(patches))
        if missing:
            raise NothingFitsError(f"Expected weights to patch, the host knows no {sorted(map(str, missing))[0]}.")
    return layers


def _check_shapes(lora: BlockLoRA, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, layer in lora.layers.items():
        if tuple(layer.weight_shape) != tuple(shapes[name]):
            raise NothingFitsError(
                f"{lora.label}: expected {name} of shape {tuple(shapes[name])}, the file's is {layer.weight_shape}. "
                f"It was trained for another base{f' ({lora.base})' if lora.base else ''}: load that checkpoint."
            )


def resolve(stack: Stack, model: ComfyModel, clip: ComfyClip | None) -> tuple[Stack, dict[str, list[str]]]:
    """The stack with layers named by the model's weights, and each file's layers that found no weight.

    Raises NothingFitsError when a file has not one layer in common with MODEL and CLIP, or one of another shape.
    """
    stems = {**model_stems(model), **(clip_stems(clip) if clip is not None else {})}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.model.state_dict().items()}
    if clip is not None:
        shapes |= {name: tuple(tensor.shape) for name, tensor in clip.cond_stage_model.state_dict().items()}
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
    stack: Stack, model: ComfyModel, clip: ComfyClip | None, method: str = "auto", overlap: Overlap = "error"
) -> Applied:
    """Merge `stack` into clones of MODEL and CLIP (which may be None); the ones given are not touched."""
    resolved, unused = resolve(stack, model, clip)
    merged = merge(resolved, method=method, overlap=overlap)
    patched = model.clone()
    model_layers = add_to(patched, merged.members, text=False)
    tokens = {lora.concept.name: lora.embeddings for lora in merged.members if lora.embeddings}
    clip_layers = 0
    if clip is not None:
        clip = with_concepts(clip, tokens)
        clip_layers = add_to(clip.patcher, merged.members, text=True)
    return Applied(patched, clip, merged, model_layers, clip_layers, tuple(tokens), unused)
