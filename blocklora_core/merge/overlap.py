"""What to do when concepts hold the same rows. Row index sets decide, never slot numbers.

A plain LoRA holds every row, so it overlaps whatever else adapts its layers. It is treated like any other:
`error` stops, because a sum on shared rows is just the mixing that row blocks exist to prevent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Literal, get_args

import torch
from torch import Tensor

from ..concept.concept import BlockLoRA, Stack
from ..concept.layer import Layer
from ..concept.rows import Rows, count, describe, index, overlap, shared

Overlap = Literal["error", "share", "priority"]

OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)


@dataclass(frozen=True)
class OverlapResult:
    """A stack after the policy; rows that several members held, and layers where they did."""

    members: Stack
    shared_rows: int
    shared_layers: int


def apply_overlap(stack: Stack, policy: Overlap) -> OverlapResult:
    """Applies the overlap policy to `stack`.

    error: ValueError that names two concepts, their layers and rows. share: a row held by k members is
    scaled by 1/k in each. priority: the member that is earlier in the stack keeps the row, it is zero in
    later ones.
    """
    if policy not in OVERLAPS:
        raise ValueError(f"Overlap policy: expected one of {', '.join(OVERLAPS)}, got {policy!r}.")
    counted = count_shared(stack)
    if not counted.shared_rows:
        return counted
    if policy == "error":
        raise ValueError(_complaint(stack))
    return replace(counted, members=_RULES[policy](stack, _holders(stack)))


def count_shared(stack: Stack) -> OverlapResult:
    """`stack` as it is, its shared rows counted: for methods that are made for them."""
    # Layers that are dealt out alike share as many rows, and a model has few ways of dealing.
    shared_by = cache(shared)
    found = [number for held in _dealt(stack).values() if (number := shared_by(tuple(held)))]
    return OverlapResult(stack, sum(found), len(found))


def check_shapes(stack: Stack, task: str) -> None:
    """ValueError, for a message about `task`, when two members change one weight as if it had two shapes."""
    first: dict[str, Layer] = {}
    for lora in stack:
        for name, layer in lora.layers.items():
            expected = first.setdefault(name, layer).weight_shape
            if layer.weight_shape != expected:
                other = next(lora for lora in stack if name in lora.layers)
                raise ValueError(
                    f"{task}: expected {expected} for {name}, as in {other.label}, got "
                    f"{layer.weight_shape} in {lora.label}. They were trained on different base models."
                )


def _dealt(stack: Stack) -> dict[str, list[Rows]]:
    """Layer name -> which of the weight's rows each member that changes it holds."""
    held: dict[str, list[Rows]] = {}
    for lora in stack:
        for name, layer in lora.layers.items():
            held.setdefault(name, []).append(layer.rows)
    return held


def _holders(stack: Stack) -> dict[str, Tensor]:
    """Layer name -> how many members hold each row, int64 (m,)."""
    heights = {name: layer.out_features for lora in stack for name, layer in lora.layers.items()}
    return {name: _count_holders(heights[name], held) for name, held in _dealt(stack).items()}


def _count_holders(out_features: int, held: Iterable[Rows]) -> Tensor:
    counts = torch.zeros(out_features, dtype=torch.long)
    for rows in held:
        counts[index(rows)] += 1
    return counts


def _share(stack: Stack, holders: dict[str, Tensor]) -> Stack:
    return tuple(_weigh_rows(lora, lambda name, rows: 1.0 / holders[name][rows]) for lora in stack)


def _priority(stack: Stack, holders: dict[str, Tensor]) -> Stack:
    free = {name: torch.ones_like(held, dtype=torch.bool) for name, held in holders.items()}

    def claim(name: str, rows: Tensor) -> Tensor:
        mine = free[name][rows]
        free[name][rows] = False
        return mine.to(torch.float32)

    return tuple(_weigh_rows(lora, claim) for lora in stack)


_RULES: dict[str, Callable[[Stack, dict[str, Tensor]], Stack]] = {"share": _share, "priority": _priority}


def _weigh_rows(lora: BlockLoRA, weigh: Callable[[str, Tensor], Tensor]) -> BlockLoRA:
    layers = {name: _weigh(layer, weigh(name, index(layer.rows))) for name, layer in lora.layers.items()}
    return lora.with_layers(layers)


def _weigh(layer: Layer, factors: Tensor) -> Layer:
    if bool((factors == 1).all()):
        return layer
    column = factors.reshape(-1, *[1] * (layer.up.ndim - 1))
    return layer.with_up(layer.up * column.to(layer.up))


def _complaint(stack: Stack) -> str:
    a, b, names = next(found for pair in combinations(stack, 2) if (found := _clash(*pair))[2])
    rows = overlap(a.layers[names[0]].rows, b.layers[names[0]].rows)
    plain = " and ".join(lora.concept.name for lora in (a, b) if lora.scheme is None)
    note = f" ({plain}: a plain LoRA holds every row.)" if plain else ""
    way = "Choose auto, which keeps plain LoRAs apart" if plain else "Give both Grams, so that auto fuses them"
    return (
        f"Expected concepts with rows of their own, but {a.label} and {b.label} share rows in "
        f"{len(names)} layers, such as {describe(rows)} ({count(rows)} in all) of {names[0]}.{note} "
        f"{way}, or task_sum for the plain sum; or set overlap to share (each gets its part of the shared rows) or to "
        "priority (the first in the stack keeps them)."
    )


def _clash(a: BlockLoRA, b: BlockLoRA) -> tuple[BlockLoRA, BlockLoRA, list[str]]:
    both = [name for name in a.layers if name in b.layers]
    return a, b, [name for name in both if overlap(a.layers[name].rows, b.layers[name].rows)]
