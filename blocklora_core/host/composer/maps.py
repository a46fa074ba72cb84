"""The attention maps of one forward: LoRA-Composer's losses read them, and so does its re-initialisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor

from ...regions import Size
from ...regions.composer.maps import outside_probabilities, token_probabilities
from ..text.layerwise import Block


class _CompleteError(Exception):
    """All maps are known. A host's forward has no other way to end early, and the rest of it is its dearest part."""


class Recorder:
    """Sums the maps of the watched layers in one forward, which `until_complete` ends after the last of them.

    blocks: the watched layers. columns: of each region's prompt, where the concept's tokens stand. tokens, outside:
    whether the concepts' maps and the boxes' view of the outside are wanted.
    Layers under gradient checkpointing run again in the backward pass: `close` first, so that their maps do not count
    twice.
    """

    def __init__(self, blocks: frozenset[Block], columns: Sequence[Sequence[int]], tokens: bool, outside: bool):
        self.blocks, self.columns = blocks, columns
        self.wants_tokens, self.wants_outside = tokens, outside
        self.size: Size | None = None
        self._sums: dict[tuple[str, int], Tensor] = {}
        self._seen: set[tuple[str, Block]] = set()
        self._open = True

    def self_attention(
        self, block: Block, q: Tensor, k: Tensor, heads: int, size: Size, masks: Tensor, bias: Tensor | None
    ) -> None:
        """One watched layer's attn1: q, k (B, N, C); masks (R, N) bool; bias (N, N) or None."""
        if not self.wants_outside or block not in self.blocks:
            return
        for number, mask in enumerate(masks):
            self._add("outside", number, outside_probabilities(q, k, heads, mask, bias))
        self._saw("self", block, size)

    def cross_attention(self, block: Block, region: int, q: Tensor, k: Tensor, heads: int, size: Size) -> None:
        """One watched layer's attn2 and one region: q (B, N, C) of all pixels, k (1 or B, T, C) of its prompt."""
        if block not in self.blocks:
            return
        if self.wants_tokens:
            keys = k.expand(q.shape[0], -1, -1)
            self._add("tokens", region, token_probabilities(q, keys, heads, self.columns[region]))
        self._saw("cross", block, size)

    def _add(self, kind: str, number: int, maps: Tensor) -> None:
        # Computed in either case: the second time has to do what the first did.
        if self._open:
            self._sums[kind, number] = self._sums[kind, number] + maps if (kind, number) in self._sums else maps

    def _saw(self, kind: str, block: Block, size: Size) -> None:
        if self._open:
            self._seen.add((kind, block))
            self.size = size

    def after_block(self, h: Tensor, skip: Tensor, _options: Any) -> tuple[Tensor, Tensor]:
        """ComfyUI's output_block_patch: it runs before each of the UNet's later blocks."""
        if self._open and {block for kind, block in self._seen if kind == "cross"} == self.blocks:
            raise _CompleteError
        return h, skip

    @contextmanager
    def until_complete(self) -> Iterator[None]:
        """For the forward to record: it ends within this context as soon as all maps are known."""
        with suppress(_CompleteError):
            yield

    def close(self) -> None:
        """Take no further maps."""
        self._open = False

    def clear(self) -> None:
        """Let go of the maps. What computes them anew for the backward pass holds this recorder: a circle that the
        garbage collector does not see."""
        self._sums.clear()

    @property
    def is_empty(self) -> bool:
        return not self._sums

    def tokens(self) -> dict[int, Tensor]:
        """Number of a region -> the mean over layers of its maps: (B, tokens, h, w)."""
        assert self.size is not None
        return {region: maps.unflatten(-1, self.size) for region, maps in self._means("tokens").items()}

    def outside(self) -> dict[int, Tensor]:
        """Number of a region -> the mean over layers of its box's view of the outside: (B, inside, outside)."""
        return self._means("outside")

    def _means(self, kind: str) -> dict[int, Tensor]:
        found = {region: maps for (known, region), maps in self._sums.items() if known == kind}
        return {region: maps / len(self.blocks) for region, maps in found.items()}
