"""Fused BlockLoRA: the closed form of gradient fusion (Mix-of-Show, arXiv 2305.18292), solved per row block.

For the rows R_i of concept i, argmin_D w |(Delta W_i - D) X_i|^2 + sum_{j != i} |D X_j|^2 + delta |Delta W_i - D|^2 is
B_i A_i' with A_i' = A_i (w G_i + delta I) (sum_j G_j + (w - 1) G_i + delta I)^-1 and G_i = X_i X_i^T. B and rows stay,
so the result is again row blocks of the same rank, each deaf to the other concepts' inputs.

Two terms are ours. The last one keeps the concept as it was trained on inputs that no concept has shown, such as the
prompts that name none; a ridge on D itself would leave those to chance. The weight w of a concept's own inputs makes up
for its being one among many: with w = 1 it gives way wherever it shares directions with the others. Only the directions
that the files hold (eigenpairs) are weighted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...cancel import patiently
from ...concept.concept import BlockLoRA, Stack
from ...concept.gram import Gram, Grams
from ...concept.layer import Layer
from ..solve import CPU, PackedSum
from .sums import per_row

DAMPING = 0.01
"""delta as a share of the mean energy per input feature, tr(sum G) / n. docs/evidence.md has the measurement."""

OWN_WEIGHT = 3.0
"""w, how much a concept's own inputs count against each other concept's. docs/people.md has the measurement."""


def fused(stack: Stack, damping: float = DAMPING, device: torch.device = CPU, own_weight: float = OWN_WEIGHT) -> Stack:
    """The stack with every down solved against the inputs of all concepts that adapt that layer; strengths
    multiply.

    A layer that only one concept adapts stays as it is: nobody else's input is known there. So do convolutions: their
    input is a patch, n kh kw numbers wide (23,040 in SD1.5), so its Gram would fill gigabytes. own_weight: w of all
    concepts. Downs come out in at least float32, solved on `device` in
    float64. ValueError when a member lacks a Gram that is needed.
    """
    return solved(stack, damping, lambda _: 1.0, device, [own_weight] * len(stack))


def solved(
    stack: Stack, damping: float, own: Callable[[int], float], device: torch.device, weights: Sequence[float]
) -> Stack:
    """The closed form that `fused` and `gradient_fusion` share, for each layer that k concepts adapt, k above 1:
    A_i' = A_i (w_i G_i + own(k) delta I) (sum G + (w_i - 1) G_i + delta I)^-1."""
    changed: list[dict[str, Layer]] = [dict(lora.layers) for lora in stack]
    for group in _groups(stack):
        summed = PackedSum.of(group.grams, device)
        # Without any energy there is nothing to be deaf to, and every delta leaves the downs as they are.
        delta = damping * summed.mean_energy or 1.0
        held = [[changed[reader][name] for name in group.layers] for reader in group.readers]
        inside = [weights[reader] for reader in group.readers]
        ridge = own(len(group.grams)) * delta
        solutions = patiently(partial(_solve, summed, held, delta, ridge, inside), summed.cost)
        for reader, downs in zip(group.readers, solutions, strict=True):
            for name, down in zip(group.layers, downs, strict=True):
                changed[reader][name] = changed[reader][name].with_down(down)
    return per_row(tuple(lora.with_layers(layers) for lora, layers in zip(stack, changed, strict=True)))


def _solve(
    summed: PackedSum, held: Sequence[Sequence[Layer]], delta: float, ridge: float, weights: Sequence[float]
) -> list[list[Tensor]]:
    """A (w G + ridge I) (sum G + (w - 1) G + delta I)^-1 of each reader's layers, in their shapes."""
    downs = [torch.cat([layer.down for layer in layers]).to(summed.diagonals) for layers in held]
    goals = [
        summed.product(number, down, weight) + ridge * down
        for number, (down, weight) in enumerate(zip(downs, weights, strict=True))
    ]
    found = summed.solve_each(goals, delta, weights)
    parts = [solution.split([layer.rank for layer in layers]) for solution, layers in zip(found, held, strict=True)]
    return [
        [_as_down(part, layer.down) for part, layer in zip(split, layers, strict=True)]
        for split, layers in zip(parts, held, strict=True)
    ]


def _as_down(solution: Tensor, down: Tensor) -> Tensor:
    # A copy of its own: a view would keep the solutions of the whole group in memory.
    return solution.to(down.device, torch.promote_types(down.dtype, torch.float32), copy=True)


def needs_grams(lora: BlockLoRA) -> list[str]:
    """The layers for which a fused merge asks `lora` for a Gram."""
    return [name for name, layer in lora.layers.items() if layer.is_matrix]


def lacks_grams(lora: BlockLoRA) -> bool:
    """Whether `lora` needs Grams and does not carry them all."""
    if lora.grams is None:
        return any(layer.is_matrix for layer in lora.layers.values())
    return not lora.grams.covers(needs_grams(lora))


@dataclass(frozen=True)
class _Group:
    """Layers that read the same input in all concepts, and so share one factorisation.

    readers: places in the stack of the concepts that adapt them; grams: one for each reader.
    """

    readers: tuple[int, ...]
    grams: tuple[Gram, ...]
    layers: list[str]


def _groups(stack: Stack) -> list[_Group]:
    # Summed in the order of the names, so that the order of the stack does not even change the rounding.
    ordered = sorted(range(len(stack)), key=lambda at: stack[at].concept.name)
    groups: dict[tuple[tuple[int, int], ...], _Group] = {}
    for name in sorted({name for lora in stack for name in needs_grams(lora)}):
        readers = tuple(at for at in ordered if name in stack[at].layers)
        if len(readers) > 1:
            grams = tuple(_gram(stack[at], name) for at in readers)
            key = tuple(zip(readers, map(id, grams), strict=True))
            groups.setdefault(key, _Group(readers, grams, [])).layers.append(name)
    return list(groups.values())


def _need(lora: BlockLoRA) -> Grams:
    if lora.grams is None:
        raise ValueError(f"fused: expected the Grams of {lora.label}, got none. Merge with per_row instead.")
    return lora.grams


def _gram(lora: BlockLoRA, name: str) -> Gram:
    grams = _need(lora)
    if not grams.covers([name]):
        raise ValueError(f"fused: expected a Gram of {lora.label} for {name}, got none. Merge with per_row instead.")
    gram, size = grams.of(name), lora.layers[name].in_features
    if gram.size != size:
        raise ValueError(f"fused: expected a Gram of {size} features for {name} of {lora.label}, got {gram.size}.")
    return gram
