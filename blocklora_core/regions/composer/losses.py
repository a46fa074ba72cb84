"""The three losses of LoRA-Composer, each per sample: (B,)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .options import ComposerOptions


def box_gaussian(mask: Tensor, sigma: float) -> Tensor:
    """G of Eq. 4: a Gaussian about the middle of the box around `mask` (h, w) bool, at most 1; 0 outside the box.

    Along each side the box's pixels lie evenly from -1 to 1, the first and the last on the ends (the code's grid).
    """
    ys, xs = (mask.any(dim).nonzero().flatten() for dim in (1, 0))
    full = torch.zeros(mask.shape, device=mask.device)
    if len(ys):
        (top, bottom), (left, right) = (ys[0], ys[-1] + 1), (xs[0], xs[-1] + 1)
        box = _bell(int(bottom - top), sigma)[:, None] * _bell(int(right - left), sigma)
        full[top:bottom, left:right] = (box / box.max()).to(full)
    return full


def _bell(size: int, sigma: float) -> Tensor:
    return torch.exp(-(torch.linspace(-1, 1, size) ** 2) / (2 * sigma**2))


def mean_top(values: Tensor, k: int) -> Tensor:
    """The mean of the k highest of each sample: (B, ...) -> (B,)."""
    flat = values.flatten(1)
    return flat.topk(min(k, flat.shape[1])).values.mean(1)


def count_top(mask: Tensor, share: float) -> int:
    """S and P: a share of the mask's area in whole pixels, at least 1."""
    return max(1, int(float(mask.sum()) * share))


def enhancement_loss(maps: Tensor, mask: Tensor, weight: Tensor, share: float) -> Tensor:
    """L_ce of one concept (Eq. 4; the code sums over its tokens and cuts at 0): how far its box is from lighting up.

    sum over tokens c of max(0, 1 - mean topk(A^c * M * G, S)). maps: (B, tokens, h, w); mask: (h, w) bool, M;
    weight: (h, w), G.
    """
    k = count_top(mask, share)
    weighted = maps * (mask * weight)
    return torch.stack([(1 - mean_top(token, k)).clamp(min=0) for token in weighted.unbind(1)]).sum(0)


def fill_loss(maps: Tensor, mask: Tensor, over: str = "box") -> Tensor:
    """L_fill of one concept (Eq. 5 to 7): the highest value of every row and column of its box should be 1.

    With p_x(j) = max_i (A * M)(i, j) and p_y(i) = max_j (A * M)(i, j), and 1 where the mask has a pixel, 0 elsewhere:
    `box`: the mean of |1 - p| over the K rows and columns that the mask touches; `map`: the mean over all columns
    plus the mean over all rows (the code's L1 losses). Summed over tokens. maps: (B, tokens, h, w); mask: (h, w) bool.
    """
    inside = maps * mask
    sides = [(inside.amax(dim), mask.any(dim_of_mask)) for dim, dim_of_mask in ((-2, 0), (-1, 1))]
    gaps = [(held.to(found) - found).abs() for found, held in sides]
    if over == "map":
        return sum((gap.mean(-1) for gap in gaps[1:]), gaps[0].mean(-1)).sum(1)
    length = sum(int(held.sum()) for _, held in sides)
    return (gaps[0].sum(-1) + gaps[1].sum(-1)).sum(1) / max(1, length)


def region_loss(outside: Tensor, k: int) -> Tensor:
    """L_region of one concept (Eq. 8): the mean of the k highest attentions from its box to pixels outside of it.

    outside: (B, inside, outside); 0 where the box is empty or covers everything.
    """
    return mean_top(outside, k) if outside.numel() else outside.new_zeros(outside.shape[0])


def constraint_loss(
    tokens: Mapping[int, Tensor], outside: Mapping[int, Tensor], masks: Tensor, options: ComposerOptions
) -> Tensor:
    """L of Eq. 9, summed over concepts: enhancement * L_ce + fill * L_fill + region * L_region -> (B,).

    tokens: number of a concept -> its smoothed maps (B, tokens, h, w); outside: -> (B, inside, outside); masks:
    (R, h, w) bool. Either may be empty where no loss reads it. A concept without a pixel at this size takes no part.
    """
    total = torch.zeros((), device=masks.device)
    for number, mask in enumerate(masks):
        if not mask.any():
            continue
        if options.reads_tokens:
            weight = box_gaussian(mask, options.gaussian_sigma) if options.centred else mask.float()
            total = total + options.enhancement * enhancement_loss(tokens[number], mask, weight, options.top_k)
            total = total + options.fill * fill_loss(tokens[number], mask, options.fill_mean)
        if options.region:
            total = total + options.region * region_loss(outside[number], count_top(mask, options.top_k))
    return total
