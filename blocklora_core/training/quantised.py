"""Quantised tensors, which hold their numbers inside: hosts' fp8 with scales, int8, fp4."""

from __future__ import annotations

from torch import Tensor


def is_quantised(tensor: Tensor) -> bool:
    """Whether `tensor` only stands for numbers that are kept in another format."""
    return hasattr(tensor, "__tensor_flatten__")


def stored(tensor: Tensor) -> list[Tensor]:
    """The tensors in memory that `tensor` is made of: itself, unless it is quantised."""
    if not is_quantised(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return [inner for name in names for inner in stored(getattr(tensor, name))]
