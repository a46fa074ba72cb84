"""Small values that the core's tests are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora_core.concept.gram import Grams
from blocklora_core.concept.keys import fused_parts
from blocklora_core.concept.layer import Layer
from blocklora_core.concept.rows import Scheme, all_rows, count

QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
KEY = QUERY.replace("to_q", "to_k")
GEGLU = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"

Shapes = Mapping[str, tuple[int, ...]]
SHAPES: Shapes = {QUERY: (40, 12), KEY: (40, 12), GEGLU: (64, 12), CONV: (40, 8, 3, 3), TEXT: (24, 10)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_layer(
    name: str,
    shape: tuple[int, ...],
    scheme: Scheme | None = None,
    slot: int | None = None,
    *,
    rank: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
) -> Layer:
    """A random layer for a weight of `shape` (m, n[, kh, kw])."""
    rows = all_rows(shape[0])
    if scheme is not None and slot is not None:
        rows = scheme.rows(slot, shape[0], fused_parts(name))
    random = generator(seed)
    up = torch.randn(count(rows), rank, *[1] * (len(shape) - 2), generator=random).to(dtype)
    down = torch.randn(rank, *shape[1:], generator=random).to(dtype)
    return Layer(up, down, rows, shape[0], scale)


@dataclass(frozen=True)
class Recipe:
    """What a random BlockLoRA is made of."""

    scheme: Scheme | None = field(default_factory=Scheme)
    shapes: Shapes = field(default_factory=lambda: SHAPES)
    rank: int = 2
    dtype: torch.dtype = torch.float32
    scale: float = 1.0
    base: str = "sd15"

    def make(self, name: str, slot: int | None = 0, *, seed: int = 0, strength: float = 1.0) -> BlockLoRA:
        slot = None if self.scheme is None else slot
        layers = {
            stem: make_layer(
                stem,
                shape,
                self.scheme,
                slot,
                rank=self.rank,
                seed=100 * seed + i,
                dtype=self.dtype,
                scale=self.scale,
            )
            for i, (stem, shape) in enumerate(sorted(self.shapes.items()))
        }
        embedding = torch.randn(2, 768, generator=generator(seed)).to(self.dtype)
        return BlockLoRA(
            Concept(name, "man"),
            layers,
            self.scheme,
            slot,
            self.base,
            {"clip_l": embedding},
            training={"steps": 250, "seed": seed, "resolution": 64},
            strength=strength,
            source=f"{name.strip('<>')}.safetensors",
        )


def inputs(lora: BlockLoRA, seed: int, columns: int = 400) -> dict[str, Tensor]:
    """Random inputs (n, columns) of each layer, unfolded for convolutions; correlated, with a mean."""
    found: dict[str, Tensor] = {}
    for i, (name, layer) in enumerate(sorted(lora.layers.items())):
        random = generator(1000 * seed + i)
        size = layer.down[0].numel()
        mix = torch.randn(size, size, generator=random, dtype=torch.float64)
        mean = torch.randn(size, 1, generator=random, dtype=torch.float64)
        found[name] = mix @ torch.randn(size, columns, generator=random, dtype=torch.float64) + 3 * mean
    return found


def with_grams(lora: BlockLoRA, found: Mapping[str, Tensor], k: int = 1000) -> BlockLoRA:
    """`lora` with the Grams of `found` for its matrices, exact as long as k is at least the number of features."""
    full = {name: x @ x.T / x.shape[1] for name, x in found.items() if lora.layers[name].is_matrix}
    grams = Grams.from_full(full, {name: name for name in full}, k)
    return replace(lora, grams=grams)
