"""Where a sampling starts."""

from __future__ import annotations

from typing import Any

import nodes

from ...regions.layout import Size


def empty_latent(size: Size, count: int) -> dict[str, Any]:
    """`count` empty pictures of `size` in pixels, height first, as Empty Latent Image gives them."""
    height, width = size
    (latent,) = nodes.EmptyLatentImage().generate(width, height, count)
    found: dict[str, Any] = latent
    return found
