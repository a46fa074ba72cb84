"""Randomized Output Erasure (BlockLoRA, arXiv 2503.08575, Eq. 3): h = W0 x + r * (B A x), r in {0, 1}^m.

Each entry of r is Bernoulli(1 - probability), in training only. Entries are independent, so a mask over
just the rows of a block has the same distribution as the block's part of a mask over all m rows: pass the
block's output.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    def mask(
        self,
        shape: Sequence[int],
        channel_dim: int = -1,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor | None:
        """Mask that broadcasts over an output of `shape`, or None when nothing is erased.

        channel_dim: the dim of output rows, -1 for Linear, 1 for convolutions. The mask is drawn on the
        generator's device, so that a CPU generator gives the same masks everywhere.
        """
        if self.probability == 0.0:
            return None
        kept = self._mask_shape(shape, channel_dim)
        source = generator.device if generator is not None else device
        draw = torch.rand(kept, generator=generator, device=source, dtype=torch.float32)
        mask = (draw >= self.probability).to(device=device, dtype=dtype or torch.float32)
        return mask / (1.0 - self.probability) if self.rescale else mask

    def apply(self, h: Tensor, channel_dim: int = -1, *, generator: torch.Generator | None = None) -> Tensor:
        """`h` (B, ..., rows), or (B, rows, H, W) with channel_dim=1, with some output rows erased."""
        return _erased(h, self.mask(h.shape, channel_dim, generator=generator, dtype=h.dtype, device=h.device))

    def _mask_shape(self, shape: Sequence[int], channel_dim: int) -> list[int]:
        if not -len(shape) <= channel_dim < len(shape):
            raise ValueError(f"Erasure: expected a channel dim within {len(shape)} dims, got {channel_dim}.")
        channel = channel_dim % len(shape)
        if self.per_sample and channel == 0:
            raise ValueError(f"Erasure per sample: expected a batch before the rows, got shape {tuple(shape)}.")
        kept = [1] * len(shape)
        kept[channel] = shape[channel]
        if self.per_sample:
            kept[0] = shape[0]
        return kept


class HeldErasure:
    """Erasure whose masks are drawn once and kept: an output that is computed again is erased as it was before."""

    def __init__(self, erasure: Erasure, generator: torch.Generator):
        self.erasure, self.generator = erasure, generator
        self._masks: dict[tuple[str, int], Tensor | None] = {}

    def apply(self, name: str, h: Tensor, channel_dim: int = -1) -> Tensor:
        """`h`, the output of layer `name`, with some output rows erased, as `Erasure.apply` does."""
        # A batch of prompts of several lengths comes in as many parts.
        key = (name, h.shape[0] if self.erasure.per_sample else 1)
        if key not in self._masks:
            self._masks[key] = self.erasure.mask(
                h.shape, channel_dim, generator=self.generator, dtype=h.dtype, device=h.device
            )
        return _erased(h, self._masks[key])


def _erased(h: Tensor, mask: Tensor | None) -> Tensor:
    return h if mask is None else h * mask
