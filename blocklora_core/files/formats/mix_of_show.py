"""Mix-of-Show's ED-LoRAs (arXiv 2305.18292): diffusers' module names and concept tokens, in nested dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ...concept.concept import BlockLoRA, Concept
from ..shown import file_word
from ..tensors import floats
from . import diffusers
from .source import Source, noted

_OUTER = "params/"
_TOKENS = "new_concept_embedding/"
_SIDES = ("unet/", "text_encoder/")
_ENCODER = "clip_l"  # Mix-of-Show trains Stable Diffusion 1.5, whose text encoder ComfyUI calls so
_BASE = "sd15"
MOST_LAYERS = 256


def owns(source: Source) -> bool:
    """Whether its tensors lie in Mix-of-Show's dictionaries."""
    return any(name.removeprefix(_OUTER).startswith((_TOKENS, *_SIDES)) for name in source.tensors)


def read(source: Source) -> BlockLoRA:
    """Scale 1. Its tokens (V_rand, V_class) become one, named after the file; layer-wise ones stay layer-wise."""
    inner = {name.removeprefix(_OUTER): tensor for name, tensor in source.tensors.items()}
    tokens = {name.removeprefix(_TOKENS): name for name in inner if name.startswith(_TOKENS)}
    concept = Concept(f"<{file_word(source.path)}>")
    lora = replace(diffusers.read(Source(source.path, _layers(inner))), concept=concept, base=_BASE)
    if not tokens:
        return lora
    vectors = _concat([_per_layer(name, inner) for name in tokens.values()])
    lora = replace(lora, embeddings={_ENCODER: vectors})
    return noted(lora, f"Its name stands for {' '.join(tokens)}.")


def _layers(inner: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in inner.items():
        if name.startswith(_TOKENS):
            continue
        side = next((side for side in _SIDES if name.startswith(side)), None)
        if side is None:
            raise ValueError(
                f"Expected an ED-LoRA's new_concept_embedding, text_encoder and unet, got {name} too. "
                "Export it with Mix-of-Show's own trainer for Stable Diffusion 1.5."
            )
        if name.endswith(".alpha"):
            raise ValueError(f"{name}: expected an ED-LoRA without alphas, which it does not define. Remove them.")
        found[name.replace("/", ".", 1)] = tensor
    return found


def _per_layer(name: str, inner: Mapping[str, Tensor]) -> Tensor:
    value = floats(name, inner)
    if value.ndim not in (1, 2) or not value.numel():
        raise ValueError(f"{name}: expected (layers, width) or (width,), got {tuple(value.shape)}.")
    return value.reshape(-1, value.shape[-1])


def _concat(tokens: list[Tensor]) -> Tensor:
    """(layers, tokens, width), or (tokens, width) where all layers read the same; a token (layers, width) or (1, width)
    each."""
    widths = sorted({token.shape[1] for token in tokens})
    if len(widths) > 1:
        raise ValueError(f"Expected concept tokens of one width, got {' and '.join(map(str, widths))}.")
    counts = sorted({len(token) for token in tokens} - {1})
    if len(counts) > 1:
        raise ValueError(f"Expected concept tokens for one number of layers, got {' and '.join(map(str, counts))}.")
    layers = counts[0] if counts else 1
    if layers > MOST_LAYERS:
        raise ValueError(
            f"Expected concept tokens for at most {MOST_LAYERS} layers, got {layers}. The file is damaged."
        )
    stacked = torch.stack([token.expand(layers, -1) for token in tokens], dim=1)
    return stacked if counts else stacked[0]
