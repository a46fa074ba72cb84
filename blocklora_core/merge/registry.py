"""The merge methods, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..concept.concept import Stack
from .methods.fused import fused
from .methods.gradient_fusion import gradient_fusion
from .methods.knots import knots
from .methods.sums import affine, orthogonal, per_row, task_sum
from .methods.ties import ties
from .options import Options


@dataclass(frozen=True)
class Method:
    """A way to merge. `apply` gives a stack whose plain sum of scale * up @ down is the merge.

    needs_grams: every member must carry them. needs_own_rows: no two members may hold a row, so the overlap policy
    applies; the others are defined for concepts that share rows. needs_layers: it reads the entries of every change, so
    adapters of other kinds must become layers; the others only weigh, and take them as they are.
    """

    name: str
    title: str
    paper: str
    needs_grams: bool
    needs_own_rows: bool
    apply: Callable[[Stack, Options], Stack]
    needs_layers: bool = False


_ALL = (
    Method(
        "fused",
        title="Fused: each concept deaf to the others' inputs",
        paper="closed form of arXiv 2305.18292",
        needs_grams=True,
        needs_own_rows=True,
        apply=lambda stack, options: fused(stack, options.damping, options.device, options.own_weight),
    ),
    Method(
        "per_row",
        title="Sum: each concept at its own strength",
        paper="arXiv 2503.08575",
        needs_grams=False,
        needs_own_rows=True,
        apply=lambda stack, _: per_row(stack),
    ),
    Method(
        "affine",
        title="Average: strengths scaled to sum to 1",
        paper="arXiv 2503.08575",
        needs_grams=False,
        needs_own_rows=True,
        apply=lambda stack, _: affine(stack),
    ),
    Method(
        "weighted_average",
        title="Average of LoRAs that share rows",
        paper="arXiv 2305.18292, weight fusion",
        needs_grams=False,
        needs_own_rows=False,
        apply=lambda stack, _: affine(stack),
    ),
    Method(
        "task_sum",
        title="Task arithmetic: the sum of LoRAs that share rows, scaled",
        paper="arXiv 2212.04089",
        needs_grams=False,
        needs_own_rows=False,
        apply=lambda stack, options: task_sum(stack, options.scale),
    ),
    Method(
        "ties",
        title="TIES: trim, elect signs, average those that agree",
        paper="arXiv 2306.01708",
        needs_grams=False,
        needs_own_rows=False,
        apply=lambda stack, options: ties(stack, options.density, options.scale),
        needs_layers=True,
    ),
    Method(
        "knots",
        title="KnOTS: TIES in a basis that all concepts share",
        paper="arXiv 2410.19735",
        needs_grams=False,
        needs_own_rows=False,
        apply=lambda stack, options: knots(stack, options.density, options.scale),
        needs_layers=True,
    ),
    Method(
        "orthogonal",
        title="Orthogonal Adaptation: a sum at a fixed weight each",
        paper="arXiv 2312.02432",
        needs_grams=False,
        needs_own_rows=False,
        apply=lambda stack, options: orthogonal(stack, options.orthogonal_weight),
    ),
    Method(
        "gradient_fusion",
        title="Gradient fusion: each concept's inputs answered as by that concept alone",
        paper="closed form of arXiv 2305.18292, on all rows",
        needs_grams=True,
        needs_own_rows=False,
        apply=lambda stack, options: gradient_fusion(stack, options.damping, options.device),
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}

AUTO = "auto"
"""Stands for what suits the files, see combine.merge."""
