"""A region of the picture: its shape, and whose it is. What it is asked to show, the prompt, is the host's business."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Box:
    """x, y (of the upper left corner), width, height, each a share of the picture in 0..1.

    What of it lies beyond the picture is cut off. ValueError when nothing is left.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        finite = all(map(math.isfinite, (self.x, self.y, self.width, self.height)))
        if not finite or not _meets(self.x, self.width) or not _meets(self.y, self.height):
            raise ValueError(
                f"Region's box: expected x, y, width, height of a part of the picture, as shares of it from 0 to 1, "
                f"got {self.x:g}, {self.y:g}, {self.width:g}, {self.height:g}: nothing of that is in the picture."
            )

    @property
    def across(self) -> tuple[float, float]:
        """Left and right edge, within the picture."""
        return max(self.x, 0.0), min(self.x + self.width, 1.0)

    @property
    def down(self) -> tuple[float, float]:
        """Upper and lower edge, within the picture."""
        return max(self.y, 0.0), min(self.y + self.height, 1.0)


def _meets(start: float, length: float) -> bool:
    return length > 0 and start < 1 and start + length > 0


MOST_WEIGHT = 10.0

Shape = Box | Tensor
"""A box, or a freehand mask (H, W) of any size in 0..1, 1 inside."""


@dataclass(frozen=True, eq=False)
class Region:
    """One region. positive, negative: the host's prompts; None is the whole picture's.

    weight: 1 as in the papers; less lets the prompt of the whole picture through, more counts against other regions.
    feather: width of its soft edge, as a share of the picture's shorter side; 0 is hard. priority: see layout.OVERLAPS.
    ValueError for a mask that is no mask or is empty, and for numbers out of range.
    """

    shape: Shape
    positive: Any = None
    negative: Any = None
    concept: str = ""
    weight: float = 1.0
    feather: float = 0.0
    priority: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"{self.label}: expected a weight of 0 or more, got {self.weight}.")
        if self.weight > MOST_WEIGHT:
            raise ValueError(f"{self.label}: expected a weight of at most {MOST_WEIGHT:g}, got {self.weight:g}.")
        if not 0 <= self.feather <= 1:
            raise ValueError(f"{self.label}: expected a feather from 0 to 1, a share of a side, got {self.feather}.")
        if isinstance(self.shape, Tensor):
            _check_mask(self.label, self.shape)

    @property
    def label(self) -> str:
        """How errors and pictures call it."""
        return f"Region {self.concept}" if self.concept else "Region"


Regions = tuple[Region, ...]


def _check_mask(label: str, mask: Tensor) -> None:
    if mask.ndim != 2 or not mask.numel():
        raise ValueError(f"{label}: expected a mask of height x width, got one of the shape {tuple(mask.shape)}.")
    least, most = float(mask.min()), float(mask.max())
    if not 0 <= least <= most <= 1:
        raise ValueError(f"{label}: expected a mask from 0 to 1, got one from {least:g} to {most:g}.")
    if most == 0:
        raise ValueError(f"{label}: the mask is empty: paint where the region is, or connect no mask and use the box.")


def check_regions(regions: Iterable[Region]) -> Regions:
    """`regions` as a tuple. ValueError when there is none, or none of a weight above 0."""
    found = tuple(regions)
    if not any(region.weight > 0 for region in found):
        raise ValueError(f"Regions: expected at least one of a weight above 0, got {len(found)} regions without one.")
    return found
