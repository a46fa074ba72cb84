"""Regionally controllable attention (Mix-of-Show, section 4.3).

With Q the queries of all cells, K_r, V_r the keys and values of region r's prompt, and w_r(i) how much region r
counts at cell i:

    out(i) = (1 - sum_r w_r(i)) Attn(Q_i, K, V) + sum_r w_r(i) Attn(Q_i, K_r, V_r)

Queries do not attend to one another, so each region asks only those that lie in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .layout import Layout

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention: q (B, n, C), k and v (B, T, C) -> (B, n, C), heads side by side in C."""

KeysValues = tuple[Tensor, Tensor]
"""k and v (1 or B, T, C) of one region's prompt."""


@dataclass(frozen=True)
class Part:
    """One region on a grid. cells: indices of the cells where it counts. weights: (n, 1)."""

    region: int
    cells: Tensor
    weights: Tensor
    positions: Tensor
    """Of `cells` in Plan.inside."""


@dataclass(frozen=True)
class Plan:
    """A layout made ready for attention: only cells where some region counts are touched.

    inside: their indices, (n,). base: (n, 1), what is left there to the whole picture's prompt.
    """

    inside: Tensor
    base: Tensor
    parts: tuple[Part, ...]


OnPart = Callable[[Part, Tensor, Tensor], None]
"""Told of a region, its keys (B, T, C) and its attention before it is weighted (B, n, C)."""


def plan(layout: Layout, device: torch.device, dtype: torch.dtype) -> Plan:
    """The plan of `layout`, its tensors on `device`, its weights of `dtype`."""
    inside = (layout.weights > 0).any(dim=0).nonzero().flatten()
    position = torch.zeros(layout.base.numel(), dtype=torch.long)
    position[inside] = torch.arange(inside.numel())

    def part(region: int, share: Tensor) -> Part:
        cells = share.nonzero().flatten()
        return Part(region, cells.to(device), share[cells, None].to(device, dtype), position[cells].to(device))

    parts = tuple(part(region, share) for region, share in enumerate(layout.weights) if share.any())
    return Plan(inside.to(device), layout.base[inside, None].to(device, dtype), parts)


def regional_attention(
    q: Tensor,
    base: Tensor,
    planned: Plan,
    keys_values: Callable[[int], KeysValues],
    attend: Attend,
    on_part: OnPart | None = None,
) -> Tensor:
    """Attention of all cells: (B, N, C). Outside the regions it is `base` bit for bit.

    q: (B, N, C). base: (B, N, C), attention to the whole picture's prompt. keys_values: a region's number -> its k, v.
    on_part: told of each region.
    """
    if not planned.parts:
        return base
    mixed = base.index_select(1, planned.inside) * planned.base
    for part in planned.parts:
        k, v = (projected.expand(q.shape[0], -1, -1) for projected in keys_values(part.region))
        own = attend(q.index_select(1, part.cells), k, v)
        if on_part is not None:
            on_part(part, k, own)
        mixed.index_add_(1, part.positions, own * part.weights)
    # Not in place: attention keeps its output for the backward pass.
    return base.index_copy(1, planned.inside, mixed)
