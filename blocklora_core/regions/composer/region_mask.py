"""The concept region mask (LoRA-Composer section 3.4): in self-attention, boxes do not see each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import Attend

BLOCKED = -1e6
"""Added to the logits of what a pixel must not see (the code)."""


def memberships(masks: Tensor) -> Tensor:
    """Which set of regions each pixel lies in, as a number: masks (R, N) bool -> (N,), 0 for the background.

    Numbers are equal where the sets are.
    """
    _, kinds = masks.T.unique(dim=0, return_inverse=True)
    return torch.where(masks.any(0), kinds + 1, torch.zeros_like(kinds))


def visible(masks: Tensor) -> Tensor:
    """Which key each query may see: masks (R, N) bool -> (N, N) bool.

    The code blocks the way from a pixel of one box to a pixel of another. A pixel that two boxes share would then be
    blocked from itself: here such pixels see each other. So a pair is open where either is background, or both lie in
    the same set of boxes.
    """
    kinds = memberships(masks)
    return (kinds[:, None] == 0) | (kinds[None] == 0) | (kinds[:, None] == kinds[None])


def logits(masks: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same to be added to logits: (N, N), 0 where open, BLOCKED or the least number of `dtype` elsewhere."""
    closed = max(BLOCKED, torch.finfo(dtype).min)
    return torch.zeros(masks.shape[1], masks.shape[1], dtype=dtype, device=masks.device).masked_fill_(
        ~visible(masks), closed
    )


class Group(NamedTuple):
    """Pixels that see the same: indices of the queries, and of the keys that they see; None for all keys."""

    queries: Tensor
    keys: Tensor | None


def groups(masks: Tensor) -> tuple[Group, ...]:
    """The pixels of masks (R, N) bool by the set of boxes they lie in, made ready for `isolated_attention`."""
    kinds = memberships(masks)

    def group(kind: int) -> Group:
        mine = kinds == kind
        return Group(mine.nonzero().flatten(), (mine | (kinds == 0)).nonzero().flatten() if kind else None)

    return tuple(map(group, kinds.unique().tolist()))


def isolated_attention(q: Tensor, k: Tensor, v: Tensor, grouped: Sequence[Group], attend: Attend) -> Tensor:
    """Self-attention under the mask, without one: each group of pixels attends only to what it may see.

    q, k, v: (B, N, C); grouped: see `groups`; attend: plain attention. Equal to attention under `visible`, with less
    to compute and no (N, N) mask in memory.
    """
    parts = []
    for queries, keys in grouped:
        seen = (k, v) if keys is None else (k.index_select(1, keys), v.index_select(1, keys))
        parts.append(attend(q.index_select(1, queries), *seen))
    back = torch.cat([queries for queries, _ in grouped]).argsort()
    return torch.cat(parts, dim=1).index_select(1, back)
