"""Latent re-initialisation (LoRA-Composer section 3.5): each box starts from the noise that its concept likes best.

The paper moves the noise by one guided step before it reads the maps; its code, and the host here, reads the maps of
the noise as it was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Extent(NamedTuple):
    """A box on a grid: rows top to bottom - 1, columns left to right - 1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def extent(mask: Tensor) -> Extent | None:
    """The smallest box around `mask` (h, w) bool; None where it is empty."""
    ys, xs = (mask.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
    return Extent(ys[0], xs[0], ys[-1] + 1, xs[-1] + 1) if ys else None


def best_corner(scores: Tensor, height: int, width: int) -> tuple[int, int]:
    """Eq. 11: the corner (row, column) of the height x width window of `scores` (h, w) with the largest sum.

    The first of several.
    """
    window = torch.ones(1, 1, height, width, dtype=scores.dtype, device=scores.device)
    sums = F.conv2d(scores[None, None], window)[0, 0]
    return divmod(int(sums.argmax()), sums.shape[1])


def reinitialised(noise: Tensor, maps: Sequence[Tensor], masks: Tensor) -> Tensor:
    """One sample's noise (C, H, W) with each concept's best window copied into its box.

    maps: a concept's map (h, w) each, summed over its tokens; masks: (R, h, w) bool, the boxes at the maps' size. The
    windows are of the noise as it was; later boxes are copied over earlier ones. The whole is then brought back to
    the mean and the standard deviation of the original (the code; the paper: "normalised to a standard Gaussian").
    A freehand mask takes the window of the box around it, and only its own pixels of that.
    """
    fresh = noise.clone()
    for scores, mask in zip(maps, masks, strict=True):
        box = extent(mask)
        if box is not None:
            _copy(noise, fresh, mask, box, best_corner(scores.float(), box.height, box.width))
    spread = fresh.std()
    return (fresh - fresh.mean()) / spread * noise.std() + noise.mean() if spread > 0 else fresh


def _copy(noise: Tensor, fresh: Tensor, mask: Tensor, box: Extent, corner: tuple[int, int]) -> None:
    size, grid = noise.shape[-2:], mask.shape
    # The grid need not divide the latents evenly: sizes are the target's, and the window stays within the picture.
    (top, bottom), (left, right) = (
        (round(first * full / cells), round(last * full / cells))
        for first, last, full, cells in zip((box.top, box.left), (box.bottom, box.right), size, grid, strict=True)
    )
    height, width = bottom - top, right - left
    y = min(round(corner[0] * size[0] / grid[0]), size[0] - height)
    x = min(round(corner[1] * size[1] / grid[1]), size[1] - width)
    rows = torch.arange(top, bottom, device=mask.device) * grid[0] // size[0]
    columns = torch.arange(left, right, device=mask.device) * grid[1] // size[1]
    mine = mask[rows][:, columns].to(noise.device)
    target = fresh[:, top:bottom, left:right]
    target.copy_(torch.where(mine, noise[:, y : y + height, x : x + width], target))
