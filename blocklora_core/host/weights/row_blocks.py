"""Any number of row blocks as one patch of one weight: each is added to its rows in place, nothing else is touched.

Stock patches cost a dozen small tensor operations each, so fifteen concepts cost fifteen times a LoRA. Here blocks of
one shape at even distances, which is how a scheme deals them out, are one batched matrix product into the weight.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ...concept.layer import Layer
from ...concept.rows import Rows

Run = tuple[Tensor, Tensor, int, int, int]
"""ups (k, rows, r) with the scale folded in, downs (k, r, n), first row, rows from block to block, rows from row to
row."""

Block = tuple[Tensor, Tensor]
"""up (1, rows, r) and down (1, r, n) of one block of a run."""


class RowBlocksAdapter(WeightAdapterBase):
    """ComfyUI's patch of one weight by the layers of all merged concepts."""

    name = "row_blocks"

    def __init__(self, loaded_keys: set[str], weights: Sequence[Run]):
        # The host makes copies with this constructor, from these two attributes, for tensors on another device.
        self.loaded_keys, self.weights = loaded_keys, tuple(weights)

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> RowBlocksAdapter:
        """One patch of all `layers`, which must be of one weight."""
        runs = _runs(tuple((layer.rank, layer.rows) for layer in layers))
        return cls(set(), [_stacked(layers, run) for run in runs])

    def calculate_shape(self, _key: str) -> None:
        """Newer hosts ask: the weight keeps its shape."""

    def calculate_weight(self, weight: Tensor, _key: str, strength: float, *_host: object, **_named: object) -> Tensor:
        """`weight` (m, n[, kh, kw]) with strength * scale * up @ down added to each block's rows, in place where it is
        contiguous.

        What else the host passes belongs to patches under keys with an offset or a function; these keys are plain.
        """
        weight = weight.contiguous()
        matrix = weight.view(weight.shape[0], -1)
        for ups, downs, start, between, step in self.weights:
            stride = matrix.stride(0)
            shape = (ups.shape[0], ups.shape[1], matrix.shape[1])
            at = matrix.storage_offset() + start * stride
            blocks = matrix.as_strided(shape, (between * stride, step * stride, matrix.stride(1)), at)
            blocks.baddbmm_(ups.to(matrix), downs.to(matrix), alpha=strength)
        return weight

    def blocks(self) -> dict[range, Block]:
        """Every block by its rows."""
        return {
            range(first, first + ups.shape[1] * step, step): (ups[i : i + 1], downs[i : i + 1])
            for ups, downs, start, between, step in self.weights
            for i, first in enumerate(start + i * between for i in range(len(ups)))
        }

    def form(self) -> tuple[tuple[int, ...], ...]:
        """Sizes and places of all runs: equal for patches that do the same sums on other numbers."""
        return tuple((*ups.shape, downs.shape[2], *placed) for ups, downs, *placed in self.weights)


class _Part(NamedTuple):
    """Evenly spaced rows of one layer, stored from `offset` on in its up. Parts of one form can be stacked."""

    form: tuple[int, int, int]
    rows: range
    layer: int
    offset: int


# Of a model's hundreds of weights most are dealt out alike.
@lru_cache(maxsize=256)
def _runs(dealt: tuple[tuple[int, Rows], ...]) -> tuple[tuple[_Part, ...], ...]:
    """Parts of all layers, given as (rank, rows), grouped by form, each group evenly spaced and disjoint."""
    runs: list[list[_Part]] = []
    for part in sorted(_parts(dealt), key=lambda part: (part.form, part.rows.start)):
        if runs and _continues(runs[-1], part):
            runs[-1].append(part)
        else:
            runs.append([part])
    return tuple(map(tuple, runs))


def _parts(dealt: tuple[tuple[int, Rows], ...]) -> Iterator[_Part]:
    for layer, (rank, segments) in enumerate(dealt):
        offset = 0
        for rows in segments:
            yield _Part((rank, len(rows), rows.step), rows, layer, offset)
            offset += len(rows)


def _continues(run: list[_Part], part: _Part) -> bool:
    if part.form != run[0].form:
        return False
    gap = part.rows.start - run[-1].rows.start
    if len(run) > 1 and gap != run[1].rows.start - run[0].rows.start:
        return False
    if part.rows.step == 1:
        return gap >= len(part.rows)
    return gap > 0 and part.rows.start - run[0].rows.start < part.rows.step


def _part_of(layer: Layer, part: _Part) -> Tensor:
    return layer.up if len(layer.rows) == 1 else layer.up[part.offset : part.offset + len(part.rows)]


def _one(tensors: list[Tensor]) -> Tensor:
    # A dense change is large: alone, it is not copied.
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


class _StackedDowns:
    """Downs as stacked for the last merge, as long as the concepts they are of exist.

    A strength is folded into the ups, so that from one merge to the next the downs are mostly the same tensors.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[list[weakref.ref[Tensor]], Tensor]] = {}

    def of(self, downs: list[Tensor]) -> Tensor:
        """`downs` below each other."""
        key = id(downs[0])
        refs, stacked = self._kept.get(key, ([], downs[0]))
        if len(refs) == len(downs) and all(ref() is down for ref, down in zip(refs, downs, strict=True)):
            return stacked
        stacked = _one(downs)
        if stacked is not downs[0]:
            # The key is the first one's address, which may be another's once that is gone.
            first = weakref.ref(downs[0], lambda _: self._kept.pop(key, None))
            self._kept[key] = ([first, *map(weakref.ref, downs[1:])], stacked)
        return stacked


_STACKED = _StackedDowns()


def _stacked(layers: Sequence[Layer], run: tuple[_Part, ...]) -> Run:
    held = [(layers[part.layer], part) for part in run]
    rank, length, _ = run[0].form
    ups = _one([_part_of(layer, part) for layer, part in held]).reshape(len(run), length, rank)
    downs = _STACKED.of([layer.down for layer, _ in held]).reshape(len(run), rank, -1)
    if any(layer.scale != 1 for layer, _ in held):
        ups = ups * torch.tensor([layer.scale for layer, _ in held], device=ups.device).reshape(-1, 1, 1)
    between = run[1].rows.start - run[0].rows.start if len(run) > 1 else 0
    return ups, downs, run[0].rows.start, between, run[0].rows.step
