"""Attention maps: how much each pixel looks at a concept's tokens, and at pixels outside of a box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


def heads_apart(x: Tensor, heads: int) -> Tensor:
    """(B, N, heads * d) -> (B, heads, N, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def token_probabilities(q: Tensor, k: Tensor, heads: int, columns: Sequence[int]) -> Tensor:
    """A_n^c: the mean over heads of softmax(q k^T / sqrt(d)), its columns at a concept's tokens.

    q: (B, N, C) of pixels, k: (B, T, C) of tokens -> (B, len(columns), N), in float32. The softmax is over all T
    tokens. Only the columns asked for are kept.
    """
    return _softmax(q, k, heads)[..., list(columns)].mean(1).transpose(1, 2)


def outside_probabilities(q: Tensor, k: Tensor, heads: int, inside: Tensor, bias: Tensor | None = None) -> Tensor:
    """The self-attention that Eq. 8 slices: the mean over heads, rows of a box's pixels, columns of all others.

    q, k: (B, N, C); inside: (N,) bool; bias: (N, N) added to the logits, such as region_mask.logits ->
    (B, inside, outside), in float32. Only the box's queries are computed.
    """
    rows = None if bias is None else bias[inside]
    return _softmax(q[:, inside], k, heads, rows)[..., ~inside].mean(1)


def _softmax(q: Tensor, k: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    q, k = heads_apart(q, heads), heads_apart(k, heads)
    logits = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
    return (logits if bias is None else logits + bias.float()).softmax(-1)


def smooth(maps: Tensor, kernel: int, sigma: float) -> Tensor:
    """`maps` (..., h, w) under the code's filter, weights exp(-(d / (2 sigma))^2) in each direction, of sum 1.

    That is a Gaussian of standard deviation sigma * sqrt(2). The border is reflected; maps too small for that repeat
    it.
    """
    line = torch.tensor(_line(kernel, sigma), device=maps.device, dtype=maps.dtype)
    reach = kernel // 2
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    border = "reflect" if min(maps.shape[-2:]) > reach else "replicate"
    padded = F.pad(flat, (reach, reach, reach, reach), mode=border)
    return F.conv2d(padded, line[None, None, :, None] * line).reshape(maps.shape)


@lru_cache(maxsize=16)
def _line(kernel: int, sigma: float) -> tuple[float, ...]:
    weights = [math.exp(-(((at - kernel // 2) / (2 * sigma)) ** 2)) for at in range(kernel)]
    return tuple(weight / sum(weights) for weight in weights)
