"""Where a sampling starts."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ...regions.layout import Size


def empty_latent(size: Size, count: int) -> dict[str, Any]:
    """`count` empty pictures of `size` in pixels, height first, as the host's Empty Latent Image gives them."""
    height, width = size
    # By its name: to a type checker `nodes` is this pack's own room.
    (latent,) = import_module("nodes").EmptyLatentImage().generate(width, height, count)
    found: dict[str, Any] = latent
    return found
