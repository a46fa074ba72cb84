"""The parts of a training loss, computed in one forward pass for each size of pictures."""

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


Passes = list[list[int]]
"""Numbers of the pictures in each of the model's passes, counted over all that were predicted."""


def term_losses(
    port: Port, terms: Sequence[Term], weighting: Callable[[Tensor], Tensor]
) -> tuple[list[Tensor], Passes]:
    """Each term's mean error, not yet multiplied by its weight, and the passes that it took, in which the first term's
    pictures come first. weighting: sigma (B,) -> what its error counts (B,)."""
    losses: dict[int, Tensor] = {}
    passes: Passes = []
    for group in _of_one_size(terms):
        before = sum(map(len, passes))
        parts = _predicted(port, [terms[at] for at in group])
        passes += [[before + row for row in rows] for rows in port.passes]
        for at, part in zip(group, parts, strict=True):
            losses[at] = (terms[at].error(part) * weighting(terms[at].sigma)).mean()
    return [losses[at] for at in range(len(terms))], passes


def _of_one_size(terms: Sequence[Term]) -> list[list[int]]:
    groups: dict[torch.Size, list[int]] = {}
    for at, term in enumerate(terms):
        groups.setdefault(term.noisy.shape[1:], []).append(at)
    return list(groups.values())


def _predicted(port: Port, terms: Sequence[Term]) -> Sequence[Tensor]:
    predicted = port.predict(
        torch.cat([term.noisy for term in terms]),
        torch.cat([term.sigma for term in terms]),
        Conditioning.cat([term.prompts for term in terms]),
    )
    return predicted.split([len(term.noisy) for term in terms])
