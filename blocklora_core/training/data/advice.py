"""What to mind about a set of training pictures, before it is trained on."""

from __future__ import annotations

from collections.abc import Mapping

from .buckets import WIDEST

FEW = 5
SMALL = 512
_NAMED = 3


def advice(sizes: Mapping[str, tuple[int, int]], count: int) -> list[str]:
    """A sentence for each thing to mind. sizes: name -> (width, height) of each that can be read; count: of all."""
    told = []
    if count < FEW:
        told.append(f"Few pictures: {count}. 10 to 25 teach a concept well.")
    small = [name for name, size in sizes.items() if min(size) < SMALL]
    if small:
        told.append(f"{len(small)} smaller than {SMALL} pixels, and never enlarged: {_names(small, sizes)}.")
    long = [name for name, size in sizes.items() if max(size) > WIDEST * min(size)]
    if long:
        told.append(
            f"{len(long)} more than {WIDEST:g} times as long as wide, cut at their ends: {_names(long, sizes)}."
        )
    if len(set(sizes.values())) > 1:
        least, most = min(sizes.values(), key=_pixels), max(sizes.values(), key=_pixels)
        told.append(f"Mixed sizes, {_by(least)} to {_by(most)}: each is scaled to the trained size in its own shape.")
    return told


def _names(names: list[str], sizes: Mapping[str, tuple[int, int]]) -> str:
    named = ", ".join(f"{name} ({_by(sizes[name])})" for name in names[:_NAMED])
    return f"{named} and {len(names) - _NAMED} more" if len(names) > _NAMED else named


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
