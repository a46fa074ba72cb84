"""Any number of row blocks as one patch of one weight: each is added to its rows in place, nothing else is touched.

Stock patches cost a dozen small tensor operations each, so fifteen concepts cost fifteen times a LoRA. Here blocks of
one shape at even distances, which is how a scheme deals them out, are one batched matrix product into the weight: two
tensors to bring to the device and one operation, which a GPU pays for at every use of a weight that it cannot hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import torch
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ...concept.layer import Layer

Run = tuple[Tensor, Tensor, int, int]
"""ups (k, rows, r) with the scale folded in, downs (k, r, n), first row, rows from block to block."""


class RowBlocksAdapter(WeightAdapterBase):
    """ComfyUI's patch of one weight by the layers of all merged concepts."""

    name = "row_blocks"

    def __init__(self, loaded_keys: set[str], weights: Sequence[Run]):
        # The host makes copies with this constructor, from these two attributes, for tensors on another device.
        self.loaded_keys, self.weights = loaded_keys, tuple(weights)

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> RowBlocksAdapter:
        """One patch of all `layers`, which must be of one weight."""
        blocks = sorted((block for layer in layers for block in _blocks(layer)), key=itemgetter(0, 1, 2))
        return cls(set(), [_stacked(run) for run in _runs(blocks)])

    def calculate_shape(self, _key: str) -> None:
        """Newer hosts ask: the weight keeps its shape."""

    def calculate_weight(self, weight: Tensor, _key: str, strength: float, *_host: object, **_named: object) -> Tensor:
        """`weight` (m, n[, kh, kw]) with strength * scale * up @ down added to each block's rows, in place where it is
        contiguous.

        What else the host passes belongs to patches under keys with an offset or a function; these keys are plain.
        """
        weight = weight.contiguous()
        matrix = weight.view(weight.shape[0], -1)
        for ups, downs, start, between in self.weights:
            (k, rows, _), n = ups.shape, matrix.shape[1]
            blocks = matrix[start:].as_strided((k, rows, n), (between * n, n, 1))
            blocks.baddbmm_(ups.to(matrix), downs.to(matrix), alpha=strength)
        return weight


class _Block(NamedTuple):
    """Neighbouring rows of one layer. up: (rows, r[, 1, 1])."""

    rank: int
    length: int
    start: int
    up: Tensor
    layer: Layer


def _blocks(layer: Layer) -> Iterator[_Block]:
    ups = layer.up.split([len(rows) for rows in layer.rows]) if len(layer.rows) > 1 else [layer.up]
    for rows, up in zip(layer.rows, ups, strict=True):
        yield _Block(layer.rank, len(rows), rows.start, up, layer)


def _runs(blocks: Sequence[_Block]) -> list[list[_Block]]:
    """The blocks, in order of shape and place, in groups of one shape, each group evenly spaced and disjoint."""
    runs: list[list[_Block]] = []
    for (_, length), alike in groupby(blocks, itemgetter(0, 1)):
        run: list[_Block] = []
        for block in alike:
            gap = block.start - run[-1].start if run else 0
            even = gap == run[1].start - run[0].start if len(run) > 1 else gap >= length
            if run and not even:
                runs.append(run)
                run = []
            run.append(block)
        runs.append(run)
    return runs


def _between(run: Sequence[_Block]) -> int:
    return run[1].start - run[0].start if len(run) > 1 else 0


def _stacked(run: Sequence[_Block]) -> Run:
    ups = _one([block.up for block in run]).reshape(len(run), run[0].length, run[0].rank)
    downs = _one([block.layer.down for block in run]).reshape(len(run), run[0].rank, -1)
    scales = [block.layer.scale for block in run]
    if any(scale != 1 for scale in scales):
        ups = ups * torch.tensor(scales, device=ups.device).reshape(-1, 1, 1)
    return ups, downs, run[0].start, _between(run)


def _one(tensors: Sequence[Tensor]) -> Tensor:
    # A dense change is large: alone, it is not copied.
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors))
