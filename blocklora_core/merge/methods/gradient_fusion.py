"""Gradient fusion (Mix-of-Show, arXiv 2305.18292) in closed form, on all rows.

argmin_D sum_i |(Delta W_i - D) X_i|^2 + delta / k sum_i |Delta W_i - D|^2 over the k concepts is
D = sum_i Delta W_i (G_i + delta / k I) (sum_j G_j + delta I)^-1: ups and rows stay, each down is solved.
As delta tends to 0 it is what the paper's LBFGS converges to on the same inputs X_i.

The paper's inputs are not quite these. It fuses the text encoder first, then takes for cross-attention's keys and
values the concept's tokens and the end token alone, as the fused encoder encodes them, and then samples with both in
place for the other layers. Here every layer is solved at once from inputs that each concept saw alone, and keys and
values take all 77 tokens of its prompts, padding too: with the concept's and the end token alone, eight plain LoRAs
kept as much of themselves (docs/evidence.md).

It differs from `fused` in what happens on inputs that no concept has shown. Here all concepts have a say in every row,
so there D is their mean. In `fused` a row block belongs to one concept, which there stays as it was trained. Seen
inputs are treated alike, so on row blocks the two meet as delta tends to 0. Convolutions, which carry no Grams, stay as
trained in both.
"""

from __future__ import annotations

import torch

from ...concept.concept import Stack
from ..solve import CPU
from .fused import DAMPING, solved


def gradient_fusion(stack: Stack, damping: float = DAMPING, device: torch.device = CPU) -> Stack:
    """The stack with every down solved, so that each concept's inputs give what that concept alone would give.

    Strengths multiply. A layer that only one concept adapts stays as it is. damping: delta as a share of the mean
    energy per input feature; device: where it is solved. ValueError when a member lacks a Gram that is needed.
    """
    return solved(stack, damping, lambda concepts: 1.0 / concepts, device, [1.0] * len(stack))
