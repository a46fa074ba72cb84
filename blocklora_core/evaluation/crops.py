"""Boxes cut out of pictures, each to be scored against its own concept and prompt (LoRA-Composer's protocol)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

Box = tuple[float, float, float, float]
"""x, y, width, height from the upper left: shares of the picture when none exceeds 1, else pixels."""

THINNEST = 256
"""How many times as long as wide a box may be: resized, a longer strip takes more memory than a picture is worth."""

SHORTER_SIDE = 224
"""What CLIP resizes a picture's shorter side to."""


def crop(picture: Tensor, box: Box, size: int = SHORTER_SIDE) -> Tensor:
    """What of (H, W, 3) or (B, H, W, 3) in [0, 1] lies in `box`, resized to `size` at its shorter side, its shape kept.

    What of the box lies beyond the picture is left out. ValueError when nothing is left, or a strip too thin to show
    anything.
    """
    left, top, right, bottom = pixels(box, picture.shape[-2], picture.shape[-3])
    short, long = sorted((right - left, bottom - top))
    if long > THINNEST * short:
        raise ValueError(
            f"Box: expected one at most {THINNEST} times as long as it is wide, got {right - left} x {bottom - top} "
            "pixels."
        )
    cut = picture[..., top:bottom, left:right, :]
    return _resize(cut if picture.ndim == 4 else cut[None], size).reshape(*picture.shape[:-3], *_shape(cut, size), -1)


def pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """left, top, right, bottom of `box` in whole pixels within a picture of `width` x `height`."""
    x, y, wide, high = box
    across, down = (width, height) if max(map(abs, box)) <= 1 else (1, 1)
    left, right = (min(max(round(edge * across), 0), width) for edge in (x, x + wide))
    top, bottom = (min(max(round(edge * down), 0), height) for edge in (y, y + high))
    if left >= right or top >= bottom:
        raise ValueError(
            f"Box {x:g}, {y:g}, {wide:g}, {high:g}: expected x, y, width, height of a part of the picture of {width} x "
            f"{height}, in shares of 1 or in pixels, got one without a pixel in it."
        )
    return left, top, right, bottom


def _shape(cut: Tensor, size: int) -> tuple[int, int]:
    height, width = cut.shape[-3], cut.shape[-2]
    scale = size / min(height, width)
    return round(height * scale), round(width * scale)


def _resize(cut: Tensor, size: int) -> Tensor:
    resized = F.interpolate(cut.movedim(-1, 1), _shape(cut, size), mode="bicubic", antialias=True)
    return resized.movedim(1, -1).clamp(0, 1)
