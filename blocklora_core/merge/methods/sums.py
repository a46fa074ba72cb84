"""Merge methods that only weigh: W = W0 + sum_i alpha_i Delta W_i."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

from ...concept import keys
from ...concept.concept import BlockLoRA, Stack

_NOUGHT = 1e-9
"""Of what strengths are in size, a sum that is no larger is 0."""

Weigh = Callable[[bool], float]
"""Whether it is for the text encoders' layers, not the model's -> factor."""


def strength_of(lora: BlockLoRA, text: bool) -> float:
    """Strength at which `lora` is asked to apply its layers of the text encoders, or of the model."""
    return lora.effective_strength_clip if text else lora.strength


def fold(lora: BlockLoRA, weigh: Weigh) -> BlockLoRA:
    """`lora` at strength 1, with the factors that `weigh` gives folded into its layers and adapters."""
    factor = cache(weigh)
    sides = {keys.is_text(name) for name in (*lora.layers, *lora.adapters)}
    if lora.strength == lora.effective_strength_clip == 1.0 and all(factor(side) == 1.0 for side in sides):
        return lora
    layers = {name: layer.scaled(factor(keys.is_text(name))) for name, layer in lora.layers.items()}
    adapters = {name: adapter.scaled(factor(keys.is_text(name))) for name, adapter in lora.adapters.items()}
    return lora.with_layers(layers).with_adapters(adapters).with_strength(1.0)


def per_row(stack: Stack) -> Stack:
    """alpha_i = s_i: each concept at its own strength (BlockLoRA, arXiv 2503.08575).

    On disjoint rows no two terms compete, so the paper's sum of alpha = 1, taken row by row, is alpha_i = 1.
    """
    return task_sum(stack)


def task_sum(stack: Stack, scale: float = 1.0) -> Stack:
    """alpha_i = scale * s_i: task arithmetic (Ilharco et al., arXiv 2212.04089)."""

    def weight(lora: BlockLoRA, text: bool) -> float:
        return scale * strength_of(lora, text)

    return tuple(fold(lora, partial(weight, lora)) for lora in stack)


def orthogonal(stack: Stack, weight: float = 0.6) -> Stack:
    """alpha_i = weight * s_i: the merge of Orthogonal Adaptation (Po et al., arXiv 2312.02432).

    Made for files whose downs are frozen rows of one shared orthogonal matrix, so that no concept hears another.
    """
    return task_sum(stack, weight)


def affine(stack: Stack) -> Stack:
    """alpha_i = s_i / sum(s), BlockLoRA's literal sum of alpha = 1; ValueError when the sum is 0.

    On plain LoRAs it is their weighted average.
    """
    total = math.fsum(lora.strength for lora in stack)
    total_clip = math.fsum(lora.effective_strength_clip for lora in stack)

    def weight(lora: BlockLoRA, text: bool) -> float:
        whole = total_clip if text else total
        # Decimals such as .7, .3 and -1 sum to what their rounding leaves.
        if abs(whole) <= _NOUGHT * math.fsum(abs(strength_of(one, text)) for one in stack):
            side = "the text encoders" if text else "the model"
            raise ValueError(f"Average: expected strengths that do not sum to 0, got 0 for {side}. Change one.")
        return strength_of(lora, text) / whole

    return tuple(fold(lora, partial(weight, lora)) for lora in stack)
