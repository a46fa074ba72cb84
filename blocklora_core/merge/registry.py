"""The merge methods, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..lora import Stack
from .fused import fused
from .sums import affine, per_row


@dataclass(frozen=True)
class Method:
    """A way to merge. `apply` gives a stack whose plain sum of scale * up @ down is the merge."""

    name: str
    title: str
    paper: str
    needs_grams: bool
    apply: Callable[[Stack], Stack]


_ALL = (
    Method(
        "fused",
        "Fused: each concept deaf to the others' inputs",
        "closed form of arXiv 2305.18292",
        True,
        fused,
    ),
    Method("per_row", "Sum: each concept at its own strength", "arXiv 2503.08575", False, per_row),
    Method("affine", "Average: strengths scaled to sum to 1", "arXiv 2503.08575", False, affine),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}

AUTO = "auto"
"""Stands for `fused` where every member has its Grams, else `per_row`."""
