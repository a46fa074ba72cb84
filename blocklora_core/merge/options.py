"""What the merge methods can be told, with the papers' own values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .methods.fused import DAMPING, OWN_WEIGHT
from .solve import CPU


@dataclass(frozen=True)
class Options:
    """Settings of the methods that have any; the others ignore them.

    density: share of each concept's entries that `ties` and `knots` keep, above 0 and at most 1.
    scale: factor on the whole of `task_sum`, `ties` and `knots` (lambda in their papers).
    orthogonal_weight: factor on each concept in `orthogonal`.
    own_weight: how much a concept's own inputs count in `fused` against each other concept's, at least 1; 0, once its
        default, becomes OWN_WEIGHT.
    damping: ridge of `fused` and `gradient_fusion`, as a share of the mean energy per input feature, above 0.
    device: where `fused` and `gradient_fusion` solve.
    Raises ValueError for any other value.
    """

    density: float = 0.2
    scale: float = 1.0
    orthogonal_weight: float = 0.6
    own_weight: float = OWN_WEIGHT
    damping: float = DAMPING
    device: torch.device = CPU

    def __post_init__(self) -> None:
        if not 0.0 < self.density <= 1.0:
            raise ValueError(f"Density: expected a share above 0 and at most 1, got {self.density!r}.")
        if self.own_weight == 0.0:
            object.__setattr__(self, "own_weight", OWN_WEIGHT)
        if not (math.isfinite(self.own_weight) and self.own_weight >= 1.0):
            raise ValueError(f"Own weight: expected a finite number of at least 1, got {self.own_weight!r}.")
        if not (math.isfinite(self.damping) and self.damping > 0.0):
            raise ValueError(f"Damping: expected a finite number above 0, got {self.damping!r}.")
        for name, value in (("Scale", self.scale), ("Orthogonal weight", self.orthogonal_weight)):
            if not math.isfinite(value):
                raise ValueError(f"{name}: expected a finite number, got {value!r}.")
