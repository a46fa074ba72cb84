"""Any number of row blocks as one patch of one weight: each is added to its rows in place, nothing else is touched.

Stock patches cost a dozen small tensor operations each, so fifteen concepts cost fifteen times a LoRA. Here blocks of
one shape at even distances, which is how a scheme deals them out, are one batched matrix product into the weight: two
tensors to bring to the device and one operation, which a GPU pays for at every use of a weight that it cannot hold.

The two are made for the moment of a load and kept only for such a GPU: kept, they would hold every concept a second
time, and new pages of memory cost a merge of sixty four times what the copying does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate, groupby
from operator import itemgetter
from typing import NamedTuple

import torch
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ...concept.layer import Layer
from ...concept.rows import Rows

Run = tuple[Tensor, Tensor, int, int]
"""ups (k, rows, r) with the scale folded in, downs (k, r, n), first row, rows from block to block."""


class RowBlocksAdapter(WeightAdapterBase):
    """ComfyUI's patch of one weight by the layers of all merged concepts."""

    name = "row_blocks"

    def __init__(self, loaded_keys: set[str], weights: Sequence[Run] | None = None, layers: Sequence[Layer] = ()):
        # The host makes copies with this constructor, from the first two attributes, for tensors on another device.
        self.loaded_keys, self.layers, self.used = loaded_keys, tuple(layers), False
        if weights is not None:
            self.weights = tuple(weights)

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> RowBlocksAdapter:
        """One patch of all `layers`, which must be of one weight."""
        return cls(set(), layers=layers)

    @cached_property
    def weights(self) -> tuple[Run, ...]:
        """The layers, stacked, and kept from now on."""
        return tuple(self._stacked())

    def calculate_shape(self, _key: str) -> None:
        """Newer hosts ask: the weight keeps its shape."""

    def calculate_weight(self, weight: Tensor, _key: str, strength: float, *_host: object, **_named: object) -> Tensor:
        """`weight` (m, n[, kh, kw]) with strength * scale * up @ down added to each block's rows, in place where it is
        contiguous.

        What else the host passes belongs to patches under keys with an offset or a function; these keys are plain.
        """
        weight = weight.contiguous()
        matrix = weight.view(weight.shape[0], -1)
        for ups, downs, start, between in self._for_now():
            (k, rows, _), n = ups.shape, matrix.shape[1]
            blocks = matrix[start:].as_strided((k, rows, n), (between * n, n, 1))
            blocks.baddbmm_(ups.to(matrix), downs.to(matrix), alpha=strength)
        return weight

    def _for_now(self) -> Iterable[Run]:
        # A load is one use. What is used again is used at every step.
        again, self.used = self.used, True
        return self.weights if again or "weights" in vars(self) else self._stacked()

    def _stacked(self) -> Iterator[Run]:
        runs = _runs(tuple((layer.rank, layer.rows) for layer in self.layers))
        return (_stacked(run, self.layers) for run in runs)


class _Block(NamedTuple):
    """Neighbouring rows of one of a weight's layers. held: where they stand in its up."""

    rank: int
    length: int
    start: int
    layer: int
    held: slice


@lru_cache(maxsize=512)
def _runs(dealt: tuple[tuple[int, Rows], ...]) -> tuple[tuple[_Block, ...], ...]:
    """The blocks of layers of these ranks and rows, in order of shape and place, in groups of one shape, each group
    evenly spaced and disjoint.

    Kept: a scheme deals out all weights of one height alike, and a model has hundreds of weights of few heights.
    """
    runs: list[tuple[_Block, ...]] = []
    for (_, length), alike in groupby(sorted(_blocks(dealt)), itemgetter(0, 1)):
        run: list[_Block] = []
        for block in alike:
            gap = block.start - run[-1].start if run else 0
            even = gap == run[1].start - run[0].start if len(run) > 1 else gap >= length
            if run and not even:
                runs.append(tuple(run))
                run = []
            run.append(block)
        runs.append(tuple(run))
    return tuple(runs)


def _blocks(dealt: tuple[tuple[int, Rows], ...]) -> Iterator[_Block]:
    for layer, (rank, rows) in enumerate(dealt):
        for part, stop in zip(rows, accumulate(map(len, rows)), strict=True):
            yield _Block(rank, len(part), part.start, layer, slice(stop - len(part), stop))


def _stacked(run: tuple[_Block, ...], layers: Sequence[Layer]) -> Run:
    first, owners = run[0], [layers[block.layer] for block in run]
    held = zip(owners, run, strict=True)
    ups = _one([layer.up if len(layer.rows) == 1 else layer.up[block.held] for layer, block in held])
    ups = ups.reshape(len(run), first.length, first.rank)
    downs = _one([layer.down for layer in owners]).reshape(len(run), first.rank, -1)
    scales = [layer.scale for layer in owners]
    if any(scale != 1 for scale in scales):
        ups = ups * torch.tensor(scales, device=ups.device).reshape(-1, 1, 1)
    return ups, downs, first.start, run[1].start - first.start if len(run) > 1 else 0


def _one(tensors: Sequence[Tensor]) -> Tensor:
    # A dense change is large: alone, it is not copied.
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors))
