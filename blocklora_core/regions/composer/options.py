"""Every weight and schedule of LoRA-Composer, and the values of its paper and of its authors' code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

FillMean = Literal["box", "map"]
FILL_MEANS: tuple[FillMean, ...] = ("box", "map")


@dataclass(frozen=True)
class ComposerOptions:
    """What is done, and how strongly. A weight of 0, or False, leaves a part out.

    enhancement, fill, region: weights of the three losses (Eq. 4, 7 and 8; Eq. 9 sums them).
    injection: each concept's own low-rank changes act in its region (Eq. 2 and 3).
    isolation: the concept region mask in self-attention (section 3.4).
    reinitialise: the latent re-initialisation (section 3.5, Eq. 11).
    centred: weigh the concept's map by a Gaussian over the box; gaussian_sigma: its width, where the box reaches from
        -1 to 1 (the paper's G).
    top_k: share of the box's area whose highest values count, S and P of the paper; at least one value counts.
    fill_mean: what L_fill is a mean over: the box's rows and columns together (the paper), or all the map's columns
        and, apart from them, all its rows (the code).
    smoothing_kernel, smoothing_sigma: the filter of the concepts' maps before the losses.
    step_size, first_scale, last_scale: the step number i of T is step_size * sqrt(linspace(first, last, T)[i]).
    last_step: the number of the last step that may be guided.
    patience: the number of the first step from which a loss that rose ends the guidance.
    Raises ValueError out of range.
    """

    enhancement: float = 1.0
    fill: float = 0.25
    region: float = 0.8
    injection: bool = True
    isolation: bool = True
    reinitialise: bool = True
    centred: bool = True
    gaussian_sigma: float = 1.0
    top_k: float = 0.2
    fill_mean: FillMean = "box"
    smoothing_kernel: int = 3
    smoothing_sigma: float = 0.5
    step_size: float = 20.0
    first_scale: float = 1.0
    last_scale: float = 0.5
    last_step: int = 25
    patience: int = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float | int) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"Composer: expected {field.name} of at least 0, got {value!r}.")
        if not 0 < self.top_k <= 1:
            raise ValueError(f"Composer: expected top_k above 0 and at most 1, got {self.top_k!r}.")
        if self.smoothing_kernel % 2 != 1:
            raise ValueError(f"Composer: expected an odd smoothing_kernel, got {self.smoothing_kernel!r}.")
        for name in ("gaussian_sigma", "smoothing_sigma"):
            if getattr(self, name) == 0:
                raise ValueError(f"Composer: expected {name} above 0, got 0.")
        if self.fill_mean not in FILL_MEANS:
            raise ValueError(f"Composer: expected fill_mean {' or '.join(FILL_MEANS)}, got {self.fill_mean!r}.")

    @property
    def reads_tokens(self) -> bool:
        """Whether a loss reads the concepts' maps."""
        return self.enhancement > 0 or self.fill > 0

    @property
    def guides(self) -> bool:
        """Whether any loss moves the latents."""
        return self.step_size > 0 and (self.reads_tokens or self.region > 0)


PAPER = ComposerOptions()
"""Eq. 9 with the paper's alpha = 0.25 and beta = 0.8 (section 4.1) and, where the paper gives no number, its code's.

The paper's weights are the code's over 8, about, and the step of 20 belongs to the code's: this guides an
eighth as hard as the code. No harder one did better (docs/regions.md)."""

CODE = ComposerOptions(enhancement=8.0, fill=2.0, region=10.0, fill_mean="map")
"""The authors' repository."""

MEDIUM = replace(PAPER, step_size=40.0)
"""The paper's weights, twice as far a step."""

PRESETS: Mapping[str, ComposerOptions] = {"gentle": PAPER, "medium": MEDIUM, "strong": CODE}
DEFAULT_PRESET = "gentle"
DEFAULTS = PRESETS[DEFAULT_PRESET]
FORMER_NAMES: Mapping[str, str] = {"paper": "gentle", "code": "strong"}
"""What workflows of 0.1 call them."""


def preset_of(name: str) -> ComposerOptions:
    """The preset of that name, or of what 0.1 called it. ValueError for another."""
    found = PRESETS.get(FORMER_NAMES.get(name, name))
    if found is None:
        raise ValueError(f"Composer: expected a preset among {', '.join(PRESETS)}, got {name!r}. Choose one of them.")
    return found
