"""Aspect buckets: the few picture sizes that a set of pictures of any size is trained at, so that batches fill up."""

from __future__ import annotations

import math

Size = tuple[int, int]
"""(width, height) in pixels."""

WIDEST = 2.0
"""Aspect ratios up to this, and its inverse, have a bucket; wider pictures are cropped."""

GRAIN = 8
"""Every side is a multiple of this: one latent pixel."""


def step_of(resolution: int) -> int:
    """Distance between bucket sides: 64 from 512 pixels on, as is usual, and finer for small models."""
    return min(64, max(GRAIN, resolution // 8 // GRAIN * GRAIN))


def bucket_sizes(resolution: int) -> list[Size]:
    """All sizes of at most `resolution` squared pixels, sides in steps, as close to that area as the steps allow.

    ValueError for a resolution below one step.
    """
    step = step_of(resolution)
    if resolution < step:
        raise ValueError(f"Resolution: expected at least {step}, got {resolution}.")
    sizes = set()
    for width in range(step, int(resolution * math.sqrt(WIDEST)) + 1, step):
        height = min(resolution**2 // width, int(resolution * math.sqrt(WIDEST))) // step * step
        if height and max(width / height, height / width) <= WIDEST:
            sizes.add((width, height))
    return sorted(sizes)


def bucket_of(size: Size, resolution: int) -> Size:
    """The bucket whose aspect ratio is nearest to the picture's, the larger one of two that are as near."""
    ratio = math.log(size[0] / size[1])
    return min(bucket_sizes(resolution), key=lambda at: (abs(math.log(at[0] / at[1]) - ratio), -at[0] * at[1], at))


def training_size(size: Size, resolution: int) -> Size:
    """The size a picture is trained at: its bucket, or, when it is no larger than that area, nearly its own.

    `resolution` 0 leaves every size. Small pictures are never enlarged; their sides are cut to multiples of 8.
    """
    if not resolution or size[0] * size[1] <= resolution**2:
        return max(GRAIN, size[0] // GRAIN * GRAIN), max(GRAIN, size[1] // GRAIN * GRAIN)
    width, height = bucket_of(size, resolution)
    # A picture narrower than its bucket's side would be enlarged to cover it.
    scale = min(1.0, size[0] / width, size[1] / height)
    return max(GRAIN, int(width * scale) // GRAIN * GRAIN), max(GRAIN, int(height * scale) // GRAIN * GRAIN)
