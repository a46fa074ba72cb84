"""Fused BlockLoRA: the closed form of gradient fusion (Mix-of-Show, arXiv 2305.18292), solved per row block.

For the rows R_i of concept i, argmin_D |(Delta W_i - D) X_i|^2 + sum_{j != i} |D X_j|^2 + delta |Delta W_i - D|^2 is
B_i A_i' with A_i' = A_i (G_i + delta I) (sum_j G_j + delta I)^-1 and G_i = X_i X_i^T. B and rows stay, so the result is
again row blocks of the same rank, each deaf to the other concepts' inputs.

The last term of the sum is ours. It keeps the concept as it was trained on inputs that no concept has shown, such as
the prompts that name none; a ridge on D itself would leave those to chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..grams import Gram, Grams, total
from ..lora import BlockLoRA, Layer, Stack
from .sums import per_row

DAMPING = 0.1
"""delta as a share of the mean energy per input feature, tr(sum G) / n."""


def fused(stack: Stack, damping: float = DAMPING) -> Stack:
    """The stack with every down solved against the inputs of all concepts that adapt that layer; strengths
    multiply.

    A layer that only one concept adapts stays as it is: nobody else's input is known there. So do convolutions: their
    input is a patch, n kh kw numbers wide (23,040 in SD1.5), so its Gram would fill gigabytes. Downs come out in at
    least float32, solved in float64. ValueError when a member lacks a Gram that is needed.
    """
    return solved(stack, damping, lambda _: 1.0)


def solved(stack: Stack, damping: float, own: Callable[[int], float]) -> Stack:
    """The closed form that `fused` and `gradient_fusion` share: A_i' = A_i (G_i + own(k) delta I) (sum G + delta I)^-1
    for each layer that k concepts adapt, k above 1."""
    changed: list[dict[str, Layer]] = [dict(lora.layers) for lora in stack]
    for group in _groups(stack):
        factor = _factor(group.grams, damping, own(len(group.grams)))
        # Solved in the order of the names too, so that the order of the stack does not even change the rounding.
        owners = sorted(
            ((name, layers, lora) for name in group.layers for layers, lora in zip(changed, stack, strict=True)
             if name in layers), key=lambda owner: (owner[0], owner[2].concept.name),
        )  # fmt: skip
        downs = factor.solve([(layers[name], _gram(lora, name)) for name, layers, lora in owners])
        for (name, layers, _), down in zip(owners, downs, strict=True):
            layers[name] = layers[name].with_down(down)
    return per_row(tuple(lora.with_layers(layers) for lora, layers in zip(stack, changed, strict=True)))


def needs_grams(lora: BlockLoRA) -> list[str]:
    """The layers for which a fused merge asks `lora` for a Gram."""
    return [name for name, layer in lora.layers.items() if layer.is_matrix]


@dataclass(frozen=True)
class _Group:
    """Layers that read the same input in all concepts, and so share one factorisation."""

    grams: tuple[Gram, ...]
    layers: list[str]


def _groups(stack: Stack) -> list[_Group]:
    # Summed in the order of the names, so that the order of the stack does not even change the rounding.
    ordered = sorted(stack, key=lambda lora: lora.concept.name)
    groups: dict[tuple[int, ...], _Group] = {}
    for name in sorted({name for lora in stack for name in needs_grams(lora)}):
        readers = [lora for lora in ordered if name in lora.layers]
        if len(readers) > 1:
            grams = tuple(_gram(lora, name) for lora in readers)
            groups.setdefault(tuple(map(id, grams)), _Group(grams, [])).layers.append(name)
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


@dataclass(frozen=True)
class _Factor:
    """Cholesky factor of sum G + delta I, and the ridge on one concept's own change."""

    cholesky: Tensor
    ridge: float

    def solve(self, wanted: list[tuple[Layer, Gram]]) -> list[Tensor]:
        """A (G + ridge I) (sum G + delta I)^-1 of each layer, in its shape; one solve for all."""
        downs = [layer.down.flatten(1).to(self.cholesky) for layer, _ in wanted]
        goals = [gram.applied_to(down) + self.ridge * down for down, (_, gram) in zip(downs, wanted, strict=True)]
        solved = torch.cholesky_solve(torch.cat(goals).T, self.cholesky).T
        parts = solved.split([len(down) for down in downs])
        return [_as_down(part, layer.down) for part, (layer, _) in zip(parts, wanted, strict=True)]


def _as_down(solved: Tensor, down: Tensor) -> Tensor:
    return solved.reshape(down.shape).to(down.device, torch.promote_types(down.dtype, torch.float32))


def _factor(grams: tuple[Gram, ...], damping: float, own: float) -> _Factor:
    summed = total(grams)
    # Without any energy there is nothing to be deaf to, and every delta leaves the downs as they are.
    delta = damping * float(summed.diagonal().mean()) or 1.0
    summed.diagonal().add_(delta)
    cholesky: Tensor
    cholesky, failed = torch.linalg.cholesky_ex(summed)
    if int(failed):
        raise ValueError(f"fused: expected a positive definite sum of Grams, got another at damping {damping}.")
    return _Factor(cholesky, own * delta)
