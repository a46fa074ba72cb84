"""What evaluation asks of a model that sees and reads: CLIP, or anything that puts pictures and words in one space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class NoTextError(ValueError):
    """The embedder has no text side, or none that fits its pictures."""


class Embedder(Protocol):
    """Pictures and texts as directions in one space."""

    def images(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) in [0, 1] -> (B, D) float32, unit length."""

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """N prompts -> (N, D) float32, unit length. NoTextError when there is no text side."""
