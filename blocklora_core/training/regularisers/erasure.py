"""Randomized Output Erasure (BlockLoRA, arXiv 2503.08575, Eq. 3): h = W0 x + r * (B A x), r in {0, 1}^m.

Each entry of r is Bernoulli(1 - probability), in training only. Entries are independent, so a mask over
just the rows of a block has the same distribution as the block's part of a mask over all m rows: pass the
block's output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Erasure:
    """Erasure of adapter outputs.

    probability: the paper's lambda, in [0, 1): the chance that an output row is erased.
    per_sample: draw one mask per element of the batch (dim 0). The paper's literal reading, our default,
        is one mask per layer per forward, shared over batch and tokens.
    rescale: divide what stays by 1 - probability, as dropout does. The paper does not.
    """

    probability: float = 0.0
    per_sample: bool = False
    rescale: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability < 1.0:
            raise ValueError(f"Erasure probability: expected 0 <= p < 1, got {self.probability!r}.")

    def mask(self, h: Tensor, channel_dim: int, generator: torch.Generator) -> Tensor | None:
        """Mask that broadcasts over the output `h`, (B, ..., rows) or (B, rows, H, W), None when nothing is erased.

        channel_dim: the dim of output rows, -1 for Linear, 1 for convolutions. The mask is drawn on the
        generator's device, so that a CPU generator gives the same masks everywhere.
        """
        if self.probability == 0.0:
            return None
        kept = [1] * h.ndim
        kept[channel_dim] = h.shape[channel_dim]
        if self.per_sample:
            kept[0] = h.shape[0]
        draw = torch.rand(kept, generator=generator, device=generator.device, dtype=torch.float32)
        mask = (draw >= self.probability).to(h)
        return mask / (1.0 - self.probability) if self.rescale else mask


class HeldErasure:
    """Erasure whose masks are drawn once and kept: an output that is computed again is erased as it was before."""

    def __init__(self, erasure: Erasure, generator: torch.Generator):
        self.erasure, self.generator = erasure, generator
        self._masks: dict[tuple[str, int], Tensor | None] = {}

    def apply(self, name: str, h: Tensor, channel_dim: int = -1) -> Tensor:
        """`h`, the output of layer `name`, with some output rows erased; see `Erasure.mask`."""
        # A batch of prompts of several lengths comes in as many parts.
        key = (name, h.shape[0] if self.erasure.per_sample else 1)
        if key not in self._masks:
            self._masks[key] = self.erasure.mask(h, channel_dim, self.generator)
        mask = self._masks[key]
        return h if mask is None else h * mask
