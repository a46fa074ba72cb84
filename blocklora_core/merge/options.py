"""What the merge methods can be told, with the papers' own values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .solve import CPU


@dataclass(frozen=True)
class Options:
    """Settings of the methods that have any; the others ignore them.

    density: share of each concept's entries that `ties` and `knots` keep, above 0 and at most 1.
    scale: factor on the whole of `task_sum`, `ties` and `knots` (lambda in their papers).
    orthogonal_weight: factor on each concept in `orthogonal`.
    device: where `fused` and `gradient_fusion` solve.
    Raises ValueError for any other value.
    """

    density: float = 0.2
    scale: float = 1.0
    orthogonal_weight: float = 0.6
    device: torch.device = CPU

    def __post_init__(self) -> None:
        if not 0.0 < self.density <= 1.0:
            raise ValueError(f"Density: expected a share above 0 and at most 1, got {self.density!r}.")
        for name, value in (("Scale", self.scale), ("Orthogonal weight", self.orthogonal_weight)):
            if not math.isfinite(value):
                raise ValueError(f"{name}: expected a finite number, got {value!r}.")
