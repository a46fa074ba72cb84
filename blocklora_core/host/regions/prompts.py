"""Regions' prompts: ComfyUI's CONDITIONING, of which a region takes the text's encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from ...regions import Region, Regions
from ...training.port import is_linear
from ..text.layerwise import cross_attention_modules

Side = Literal["positive", "negative"]

SIDES: tuple[Side, ...] = ("positive", "negative")

# What a prompt may carry beside its text, and regions would leave out in silence.
_ELSEWHERE = ("area", "mask", "control", "hooks", "gligen", "start_percent", "end_percent")


def text_of(region: Region, side: Side) -> Tensor | None:
    """(1, T, C) encoding of the region's prompt for `side`; None where it has none. ValueError as `prompt_of`."""
    found = prompt_of(region, side)
    return None if found is None else found[0]


def prompt_of(region: Region, side: Side) -> tuple[Tensor, Mapping[str, Any]] | None:
    """The same, with what the text encoder gave besides, by the host's names.

    ValueError when the CONDITIONING is more than one prompt, or more than text.
    """
    conditioning: Any = region.positive if side == "positive" else region.negative
    if conditioning is None:
        return None
    if len(conditioning) != 1 or conditioning[0][0].shape[0] != 1:
        raise ValueError(
            f"{region.label}: expected one {side} prompt, got {len(conditioning)} combined or a batch. "
            "Use Conditioning (Concat) to put texts together, or a region for each."
        )
    text, settings = conditioning[0]
    found = [name for name in _ELSEWHERE if settings.get(name) is not None]
    if found:
        raise ValueError(
            f"{region.label}: expected a {side} prompt of text alone, got one with {', '.join(found)}. "
            "Connect that to the sampler's own prompt: it is for the whole picture."
        )
    return text, settings


def check_prompts(regions: Regions, network: nn.Module) -> None:
    """ValueError unless every region's prompts are text for `network`, where it tells how wide that is."""
    width = _text_width(network)
    for region in regions:
        for side in SIDES:
            text = text_of(region, side)
            if text is not None and width is not None:
                check_width(region, side, text, width)


def check_width(region: Region, side: Side, text: Tensor, width: int) -> None:
    """ValueError unless `text` (1, T, C) is `width` wide."""
    if text.shape[-1] != width:
        raise ValueError(
            f"{region.label}: expected a {side} prompt {width} numbers wide, as this model reads, got "
            f"{text.shape[-1]}. Encode it with the CLIP of this checkpoint."
        )


def _text_width(network: Any) -> int | None:
    reader = next((getattr(network, name) for name in ("txt_in", "context_embedder") if hasattr(network, name)), None)
    blocks = cross_attention_modules(network)
    if reader is None and blocks:
        reader = blocks[0].to_k
    return int(reader.in_features) if reader is not None and is_linear(reader) else None
