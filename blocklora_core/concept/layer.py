"""One weight's part of a concept: a low-rank change of some of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .rows import Parts, Rows, all_rows, count, index, sizes, tidy


class ShapeError(ValueError):
    """A layer was made for a weight of another shape."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Low-rank change of some rows of one weight: delta[rows] = scale * up @ down.

    up: (|rows|, r) or (|rows|, r, 1, ...), the paper's B cut down to the rows it may change.
    down: (r, n) or (r, n, k, ...), the paper's A.
    rows: which rows of the weight; out_features: how many rows the weight has (m). parts: by which a scheme of version
    2 dealt them out.
    Raises ValueError when these disagree.
    """

    up: Tensor
    down: Tensor
    rows: Rows
    out_features: int
    scale: float = 1.0
    parts: Parts = ()

    def __post_init__(self) -> None:
        if self.up.ndim < 2 or self.down.ndim < 2 or any(size != 1 for size in self.up.shape[2:]):
            raise ValueError(
                f"Expected up (rows, r[, 1, 1]) and down (r, n[, kh, kw]), "
                f"got {tuple(self.up.shape)} and {tuple(self.down.shape)}."
            )
        if self.up.shape[1] != self.down.shape[0]:
            raise ValueError(f"Expected equal ranks, got up {self.up.shape[1]} and down {self.down.shape[0]}.")
        if self.rank < 1:
            raise ValueError("Expected a rank of at least 1, got 0.")
        if tidy(self.rows) != self.rows or self.up.shape[0] != count(self.rows):
            raise ValueError(f"Expected {count(self.rows)} rows in up, as rows says, got {self.up.shape[0]}.")
        if self.rows and self.rows[-1][-1] >= self.out_features:
            raise ValueError(f"Expected rows below {self.out_features}, got row {self.rows[-1][-1]}.")
        if self.parts:
            sizes(self.out_features, self.parts)
        _finite(self.scale)

    @classmethod
    def of_dense(cls, delta: Tensor) -> Layer:
        """`delta` (m, n[, kh, kw]) as a layer of every row, exactly.

        The factor on the shorter side is an identity, so the rank is min(m, n kh kw) and the size at most double.
        """
        m, n = delta.flatten(1).shape
        identity, kernel = torch.eye(min(m, n)).to(delta), [1] * (delta.ndim - 2)
        up, down = (identity, delta) if m <= n else (delta, identity)
        return cls(up.reshape(m, -1, *kernel), down.reshape(-1, *delta.shape[1:]), all_rows(m), m)

    # Cached, as a merge asks every layer of every file and a tensor takes a microsecond to tell its shape.
    @cached_property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    @property
    def in_features(self) -> int:
        """n, the weight's dim 1: kernel sizes not counted."""
        return self.down.shape[1]

    @property
    def is_matrix(self) -> bool:
        """Whether the weight is a Linear's, not a convolution's."""
        return self.down.ndim == 2

    @cached_property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight that this layer changes: (m, n[, kh, kw])."""
        return (self.out_features, *self.down.shape[1:])

    @cached_property
    def reach(self) -> float:
        """No number of up @ down is larger than this; not finite where one of up or down is not."""
        return self.rank * _largest(self.up) * _largest(self.down)

    def delta(self) -> Tensor:
        """Change of the held rows: (|rows|, n[, kh, kw]), in at least float32."""
        dtype = torch.promote_types(torch.promote_types(self.up.dtype, self.down.dtype), torch.float32)
        product = self.up.flatten(1).to(dtype) @ self.down.flatten(1).to(dtype)
        return (self.scale * product).reshape(-1, *self.down.shape[1:])

    def dense(self) -> Tensor:
        """Change of the whole weight: (m, n[, kh, kw]), zero outside the held rows."""
        delta = self.delta()
        if self.rows == all_rows(self.out_features):
            return delta
        full = delta.new_zeros(self.weight_shape)
        return full.index_copy_(0, index(self.rows, delta.device), delta)

    def full_up(self) -> Tensor:
        """`up` with zero rows outside the block: (m, r[, 1, 1])."""
        full = self.up.new_zeros((self.out_features, *self.up.shape[1:]))
        return full.index_copy_(0, index(self.rows, self.up.device), self.up)

    def fitted(self, shape: tuple[int, ...]) -> Layer:
        """The same layer for a weight of `shape`: trainers write the sizes of a 1x1 kernel out or leave them out, and
        some write the kernels of a convolution as one row each.

        ShapeError when it is not the same weight.
        """
        if self.weight_shape == shape and self.up.ndim == 2:
            return self
        flat = self.down.ndim == 2 and self.weight_shape == (shape[0], math.prod(shape[1:]))
        if not flat and _without_ones(self.weight_shape) != _without_ones(shape):
            raise ShapeError(f"expected shape {shape}, the layer's is {self.weight_shape}.")
        return replace(self, up=self.up.flatten(1), down=self.down.reshape(self.rank, *shape[1:]))

    def scaled(self, factor: float) -> Layer:
        """The same layer, `factor` times as strong."""
        if factor == 1:
            return self
        # Not `replace`, which would check and work out again what a scale does not touch.
        scaled = copy(self)
        vars(scaled)["scale"] = _finite(self.scale * factor)
        return scaled

    def with_down(self, down: Tensor) -> Layer:
        """The same layer with another down."""
        return replace(self, down=down)

    def with_up(self, up: Tensor) -> Layer:
        """The same layer with another up for the same rows."""
        return replace(self, up=up)


def _finite(scale: float) -> float:
    if not math.isfinite(scale):
        raise ValueError(f"Expected a finite scale, got {scale!r}.")
    return scale


def _largest(values: Tensor) -> float:
    return float(values.abs().amax()) if values.numel() else 0.0


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    kernel = shape[2:]
    return shape[:2] if all(size == 1 for size in kernel) else shape


def placed(layer: Layer, rows: range, out_features: int) -> Layer:
    """`layer`, whose weight is the piece `rows` of one with `out_features` rows, as a layer of the whole.

    ShapeError when it was made for a piece of another size.
    """
    if layer.out_features != len(rows):
        raise ShapeError(f"expected {len(rows)} rows, the layer has {layer.out_features}.")
    moved = tidy(range(part.start + rows.start, part.stop + rows.start) for part in layer.rows)
    return replace(layer, rows=moved, out_features=out_features, parts=())


def concat_layers(layers: Sequence[Layer]) -> Layer:
    """One layer that changes a weight as all `layers` of it do; its rank is the sum of theirs.

    ValueError when their rows overlap or interleave.
    """
    first, *others = ordered = sorted(layers, key=lambda layer: layer.rows[0].start if layer.rows else 0)
    if not others:
        return first
    return Layer(
        torch.block_diag(*(layer.up.flatten(1).float() * layer.scale for layer in ordered)),
        torch.cat([layer.down.float() for layer in ordered]),
        tidy(part for layer in ordered for part in layer.rows),
        first.out_features,
    )
