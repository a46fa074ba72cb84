"""Regions' prompts: ComfyUI's CONDITIONING, of which a region takes the text's encoding."""

from __future__ import annotations

from typing import Any, Literal

from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from torch import Tensor, nn

from ...regions import Region, Regions
from ..text.layerwise import cross_attention_modules

Side = Literal["positive", "negative"]

SIDES: tuple[Side, ...] = ("positive", "negative")

# What a prompt may carry beside its text, and regions would leave out in silence.
_ELSEWHERE = ("area", "mask", "control", "hooks", "gligen", "start_percent", "end_percent")


def text_of(region: Region, side: Side) -> Tensor | None:
    """(1, T, C) encoding of the region's prompt for `side`; None where it has none.

    ValueError when the CONDITIONING is more than one prompt.
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
    return text


def check_prompts(regions: Regions, network: nn.Module) -> None:
    """ValueError unless every region's prompts are text for `network`."""
    width = _text_width(network)
    for region in regions:
        for side in SIDES:
            text = text_of(region, side)
            if text is not None and text.shape[-1] != width:
                raise ValueError(
                    f"{region.label}: expected a {side} prompt {width} numbers wide, as this model reads, got "
                    f"{text.shape[-1]}. Encode it with the CLIP of this checkpoint."
                )


def _text_width(network: Any) -> int:
    if isinstance(network, Flux):
        return network.txt_in.in_features
    if isinstance(network, MMDiT):
        return network.context_embedder.in_features
    width: int = cross_attention_modules(network)[0].to_k.in_features  # type: ignore[assignment]
    return width
