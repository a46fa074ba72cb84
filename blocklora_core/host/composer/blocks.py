"""Where a UNet's attention layers sit, and how coarse the picture is there."""

from __future__ import annotations

import math
from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample
from torch import nn

from ..text.layerwise import Block, cross_attention_layers

WATCHED_FACTOR = 4
"""LoRA-Composer reads maps at H/32 x W/32 of the picture, which is a quarter of the latents: SD1.5's layers 4, 5, 7, 8
and 9."""


def downscaling(network: Any) -> dict[Block, int]:
    """Block of each cross-attention -> how many latent pixels a side make one of its tokens; empty without any."""
    blocks = cross_attention_layers(network)
    if not blocks:
        return {}
    factor, factors = 1, {}
    for number, block in enumerate(network.input_blocks):
        factor *= 2 if _has(block, Downsample) else 1
        factors["input", number] = factor
    factors["middle", 0] = factor
    for number, block in enumerate(network.output_blocks):
        factors["output", number] = factor
        factor //= 2 if _has(block, Upsample) else 1
    return {block: factors[block[0], block[1]] for block in blocks}


def _has(block: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in block.modules())


def watched_blocks(network: Any) -> frozenset[Block]:
    """The cross-attentions whose maps LoRA-Composer reads: those nearest to a quarter of the latents, by ratio.

    SD1.5: the paper's five. SDXL: all of its coarsest level. Of two levels as near, the finer.
    """
    factors = downscaling(network)
    if not factors:
        return frozenset()
    chosen = min(set(factors.values()), key=lambda factor: (abs(math.log2(factor / WATCHED_FACTOR)), factor))
    return frozenset(block for block, factor in factors.items() if factor == chosen)
