"""Exponential moving average of what is learnt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def warmed(decay: float, updates: int) -> float:
    """The decay after so many updates: small at first, so that the start is soon forgotten."""
    return min(decay, (1 + updates) / (10 + updates))


class Ema:
    """values: averages of the parameters, in their order. updates: how many values each has seen."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float):
        self.decay, self.updates = decay, 0
        self.values: list[Tensor] = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, parameters: Sequence[nn.Parameter]) -> None:
        """average += (1 - decay) * (parameter - average)."""
        share = 1 - warmed(self.decay, self.updates)
        for value, parameter in zip(self.values, parameters, strict=True):
            value.lerp_(parameter, share)
        self.updates += 1
