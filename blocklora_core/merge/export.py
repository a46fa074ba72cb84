"""A merge as one plain LoRA: for each weight one up and one down, whose product is the sum of all members' changes.

What rank that takes. Row blocks share no rows, so a weight's change is B_1 A_1 on the first block's rows, B_2 A_2 on
the next one's, and so on. Its rank is the dimension of the space that the rows of all B_i A_i span together. Where
the A_i are equal that is the rank of one; but every concept learns an A of its own, and two blocks of one row and
rank 1 each, with rows a_1 and a_2 that point in different directions, already make a matrix of rank 2. So in general
the ranks add up, on row blocks as on shared rows, until the weight's own size is reached. What row blocks do save is
entries: the up has as many that are not zero as the up of one LoRA has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from ..cancel import check, patiently
from ..concept.concept import Stack
from ..concept.layer import Layer
from ..concept.rows import all_rows, index
from .diagnostics import inner_product
from .methods.joint import by_weight

Layers = Mapping[str, Layer]

_SMALL = (torch.float16, torch.bfloat16)


def flat(members: Stack) -> dict[str, Layer]:
    """The sum of `members`, strengths folded in, as one layer of every row for each weight that some member changes.

    Exact: downs are put side by side, equal ones once. Where that would take a rank above the weight's smaller side, a
    layer of just that rank holds the sum itself. ValueError for members with adapters of other kinds.
    """
    _check_kinds(members)
    changed = ((name, [layer for layer in held if layer.rows]) for name, held in by_weight(members))
    return {name: united(held) for name, held in changed if held}


def _check_kinds(members: Stack) -> None:
    for lora in members:
        if lora.adapters:
            kinds = ", ".join(sorted(lora.kinds))
            raise ValueError(
                f"Export: expected LoRA layers alone, got {kinds} in {lora.label}. Leave it out, or save the merged "
                "MODEL with Save Checkpoint, which holds every kind."
            )


def united(layers: Sequence[Layer]) -> Layer:
    """Changes of one weight as one layer of every row: see `flat`."""
    m, *others = layers[0].weight_shape
    groups = _by_down(layers)
    if sum(group[0].rank for group in groups) > min(m, math.prod(others)):
        return Layer.of_dense(torch.stack([layer.dense() for layer in layers]).sum(0))
    scales = {layer.scale for layer in layers}
    scale = scales.pop() if len(scales) == 1 else 1.0
    ups, downs = [_placed(group, scale) for group in groups], [group[0].down for group in groups]
    # A closed form leaves half-precision ups beside float32 downs: what holds both loses nothing.
    dtype = reduce(torch.promote_types, (factor.dtype for factor in (*ups, *downs)))
    up = torch.cat([one.to(dtype) for one in ups], 1)
    down = torch.cat([one.to(up) for one in downs])
    return Layer(up.reshape(*up.shape, *[1] * (down.ndim - 2)), down, all_rows(m), m, scale)


def truncated(layer: Layer, rank: int) -> Layer:
    """The nearest layer of at most `rank`, by singular values (Eckart and Young); `layer` itself when it is no larger.

    Solved in float64, given in float32.
    """
    if layer.rank <= rank:
        return layer
    cost = 2 * (layer.up.numel() + layer.down.numel()) * layer.rank + 20 * layer.rank**3
    return patiently(lambda: _truncated(layer, rank), cost)


def _truncated(layer: Layer, rank: int) -> Layer:
    up, down = layer.up.flatten(1).double() * layer.scale, layer.down.flatten(1).double()
    (left, small_left), (right, small_right) = torch.linalg.qr(up), torch.linalg.qr(down.T)
    u, values, v = torch.linalg.svd(small_left @ small_right.T, full_matrices=False)
    roots = values[:rank].sqrt()
    new_up, new_down = left @ u[:, :rank] * roots, (right @ v[:rank].T * roots).T
    kernel = [1] * (layer.down.ndim - 2)
    return Layer(
        new_up.float().reshape(*new_up.shape, *kernel),
        new_down.float().reshape(-1, *layer.down.shape[1:]),
        layer.rows,
        layer.out_features,
    )


def relative_error(got: Layers, exact: Layers) -> float:
    """|got - exact| / |exact| over all weights, in Frobenius norms; 0 for two merges that change nothing.

    Differences below 1e-8 drown in the rounding of float64.
    """
    gap = math.fsum(_squared(_difference(got[name], layer)) for name, layer in exact.items())
    whole = math.fsum(_squared(layer) for layer in exact.values())
    return math.sqrt(gap / whole) if whole else 0.0


def in_dtype(layer: Layer, dtype: torch.dtype) -> Layer:
    """`layer` as a file of `dtype` gives it back."""
    return layer.with_up(layer.up.to(dtype)).with_down(layer.down.to(dtype))


def smallest_exact(tensors: Sequence[Tensor]) -> torch.dtype:
    """float16 where it holds every number of `tensors` unchanged, else bfloat16 where that does, else float32."""
    return next((dtype for dtype in _SMALL if all(_holds(dtype, tensor) for tensor in tensors)), torch.float32)


def _holds(dtype: torch.dtype, tensor: Tensor) -> bool:
    check()
    return torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)


def _by_down(layers: Sequence[Layer]) -> list[list[Layer]]:
    groups: list[list[Layer]] = []
    for layer in layers:
        own = next((group for group in groups if torch.equal(group[0].down, layer.down)), None)
        if own is None:
            groups.append([layer])
        else:
            own.append(layer)
    return groups


def _placed(group: Sequence[Layer], scale: float) -> Tensor:
    """The ups of layers that share their down as one of every row: (m, r). `scale` is left to the result."""
    ups = [layer.up.flatten(1) if layer.scale == scale else layer.up.flatten(1).float() * (layer.scale / scale)
           for layer in group]  # fmt: skip
    dtype = reduce(torch.promote_types, (up.dtype for up in ups))
    placed = ups[0].new_zeros((group[0].out_features, group[0].rank), dtype=dtype)
    for layer, up in zip(group, ups, strict=True):
        placed.index_add_(0, index(layer.rows, placed.device), up.to(dtype))
    return placed


def _difference(a: Layer, b: Layer) -> Layer:
    """a - b, both of every row."""
    ups = [layer.up.flatten(1).double() * factor for layer, factor in ((a, a.scale), (b, -b.scale))]
    downs = [layer.down.flatten(1).double() for layer in (a, b)]
    return Layer(torch.cat(ups, 1), torch.cat(downs), a.rows, a.out_features)


def _squared(layer: Layer) -> float:
    return max(0.0, inner_product(layer, layer))
