"""The parts of a training loss, all computed in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .port import Conditioning, Port


@dataclass(frozen=True)
class Term:
    """Pictures whose mean error is one part of the loss.

    noisy (B, C, H, W) at noise levels sigma (B,); target (B, C, H, W): what the clean estimate should be.
    masks: (B, 1, H, W), where errors count; None is everywhere. weight: of this part in the loss.
    """

    noisy: Tensor
    sigma: Tensor
    prompts: Conditioning
    target: Tensor
    weight: float = 1.0
    masks: Tensor | None = None

    def error(self, predicted: Tensor) -> Tensor:
        """Mean squared error of each picture: (B,)."""
        squared = (predicted - self.target).square()
        if self.masks is None:
            return squared.flatten(1).mean(1)
        # Video latents have frames between channels and pixels.
        masks = self.masks.to(squared).unflatten(1, (1,) * (squared.ndim - 3)).expand_as(squared)
        return (squared * masks).flatten(1).sum(1) / masks.flatten(1).sum(1)


def term_losses(port: Port, terms: Sequence[Term], weighting: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Each term's mean error, not yet multiplied by its weight. weighting: sigma (B,) -> what its error counts (B,)."""
    predicted = port.predict(
        torch.cat([term.noisy for term in terms]),
        torch.cat([term.sigma for term in terms]),
        Conditioning.cat([term.prompts for term in terms]),
    )
    parts = predicted.split([len(term.noisy) for term in terms])
    return [(term.error(part) * weighting(term.sigma)).mean() for term, part in zip(terms, parts, strict=True)]
