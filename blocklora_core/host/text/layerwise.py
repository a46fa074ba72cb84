"""Layer-wise prompts (ED-LoRA, Mix-of-Show section 4.1; P+): every cross-attention layer reads its own encoding.

The encodings travel as one long context, so that stock nodes carry, combine and batch them: 77 tokens of the first
layer, 77 of the second, and so on, and all of that again for every further 77 tokens of a long prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...training.port import CrossAttention
from ..comfy import ComfyModel

SECTION = 77
"""Tokens that CLIP encodes at a time."""

Block = tuple[str, int, int]
"""Where the host says a transformer block is: ("input", block's number, block's index among its neighbours)."""

_BLOCK = re.compile(r"(input|middle|output)_blocks?\.(\d+)\..*transformer_blocks\.(\d+)\.attn2$")


def cross_attention_layers(network: nn.Module) -> dict[Block, int]:
    """Block of each cross-attention of a UNet -> its number, from the first that computes on; empty for others."""
    found = [match for name, _ in network.named_modules() if (match := _BLOCK.search(name))]
    # The middle is one block to the host, whatever the module's number in it.
    blocks = [
        (kind, 0 if kind == "middle" else int(number), int(index))
        for kind, number, index in (m.groups() for m in found)
    ]
    return {block: number for number, block in enumerate(blocks)}


def cross_attention_blocks(network: nn.Module) -> dict[Block, Any]:
    """Block of each cross-attention -> its module, in the same order."""
    found = [module for name, module in network.named_modules() if _BLOCK.search(name)]
    return dict(zip(cross_attention_layers(network), found, strict=True))


def cross_attention_modules(network: nn.Module) -> list[CrossAttention]:
    """The same cross-attentions, in the same order."""
    found = cross_attention_blocks(network).values()
    return [CrossAttention(module.to_q, module.to_k, module.heads) for module in found]


class LayerContext:
    """ComfyUI's attn2_patch that cuts each layer's own encoding out of a layer-wise context, and leaves any other."""

    def __init__(self, layers: Mapping[Block, int]):
        self.layers = layers

    def __call__(
        self, x: Tensor, context: Tensor, value: Tensor | None, options: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        block = (*options["block"], options["block_index"])
        return x, self.own(context, block), None if value is None else self.own(value, block)

    def own(self, context: Tensor, block: Block) -> Tensor:
        """What the layer at `block` reads of `context` (B, tokens, width)."""
        batch, tokens, width = context.shape
        number = self.layers.get(block)
        if number is None or tokens % (SECTION * len(self.layers)):
            return context
        sections = context.reshape(batch, -1, len(self.layers), SECTION, width)
        return sections[:, :, number].reshape(batch, -1, width)


def read_layerwise(model: ComfyModel, layers: int) -> None:
    """Let MODEL, a clone of ours, read layer-wise prompts. ValueError when it has another number of such layers."""
    known = cross_attention_layers(model.model.diffusion_model)
    if len(known) != layers:
        raise ValueError(
            f"Layer-wise concept tokens: expected {len(known) or 'no'} layers, as this model has, got {layers}. "
            "The file was trained on another base: load that checkpoint."
        )
    model.set_model_attn2_patch(LayerContext(known))
