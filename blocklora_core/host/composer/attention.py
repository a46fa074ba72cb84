"""What LoRA-Composer changes in a UNet's attention, for one call of the model: ComfyUI's patches of that call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...regions import Regions, Size, layout, mask_of
from ...regions.composer.region_mask import Group, groups, isolated_attention, logits
from ...regions.layout import HALF, OverlapRule
from ..regions.cross import RegionAttention, Replace, attention_of, grid_of
from ..text.layerwise import Block
from .context import KEY, Context, context_of
from .injection import Injection


class Boxes:
    """The regions as masks on any grid, kept while a sampling lasts."""

    def __init__(self, regions: Regions, rule: OverlapRule):
        self.regions, self.rule = regions, rule
        self._masks: dict[tuple[Size, torch.device], Tensor] = {}
        self._groups: dict[tuple[Size, torch.device], tuple[Group, ...]] = {}

    def masks(self, size: Size, device: torch.device) -> Tensor:
        """(R, h, w) bool: pixels at least half inside, and not another's by the overlap rule."""
        if (size, device) not in self._masks:
            with torch.inference_mode(False):
                counts = layout(self.regions, size, self.rule).weights.unflatten(-1, size) > 0
                inside = torch.stack([mask_of(region, size) >= HALF for region in self.regions])
                self._masks[size, device] = (counts & inside).to(device)
        return self._masks[size, device]

    def groups(self, size: Size, device: torch.device) -> tuple[Group, ...]:
        if (size, device) not in self._groups:
            with torch.inference_mode(False):
                self._groups[size, device] = groups(self.masks(size, device).flatten(1))
        return self._groups[size, device]


@dataclass(frozen=True, eq=False)
class AttentionPatches:
    """Patches of one call. context: of that call."""

    boxes: Boxes
    isolation: bool
    context: Context

    def on(self, options: Mapping[str, Any], layers: Mapping[Block, Any], injects: bool) -> dict[str, Any]:
        """`options` of the host with our attention in every layer; what other packs had put there is called, too."""
        changed: dict[str, Any] = {**options, KEY: self.context}
        if self.isolation or self.context.recorder is not None:
            replaced = options.get("patches_replace", {})
            others: Mapping[Any, Replace] = replaced.get("attn1", {})
            ours = {block: _SelfAttention(self, block, others.get(block) or others.get(block[:2])) for block in layers}
            changed["patches_replace"] = {**replaced, "attn1": {**others, **ours}}
        if injects:
            patches = options.get("patches", {})
            after = [*patches.get("attn2_output_patch", ()), self.add_pending]
            changed["patches"] = {**patches, "attn2_output_patch": after}
        return changed

    def add_pending(self, n: Tensor, options: Mapping[str, Any]) -> Tensor:
        """attn2_output_patch: n (B, N, C) with the concepts' changes of to_out in their regions."""
        waiting = (self.context.pending or {}).pop((*options["block"], options["block_index"]), ())
        if not waiting:
            return n
        change = torch.zeros_like(n)
        for rows, cells, added in waiting:
            change[rows] = change[rows].index_add(1, cells, added.to(n.dtype))
        return n + change


@dataclass(frozen=True, eq=False)
class _SelfAttention:
    """attn1_replace of one layer. other: the one that was there before."""

    patches: AttentionPatches
    block: Block
    other: Replace | None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        size = grid_of(q, options)
        attend = attention_of(options)
        recorder = self.patches.context.recorder
        if recorder is not None:
            masks = self.patches.boxes.masks(size, q.device).flatten(1)
            bias = logits(masks) if self.patches.isolation else None
            recorder.self_attention(self.block, q, k, heads=options["n_heads"], size=size, masks=masks, bias=bias)
        if not self.patches.isolation:
            return attend(q, k, v) if self.other is None else self.other(q, k, v, options)
        isolated = isolated_attention(q, k, v, self.patches.boxes.groups(size, q.device), attend)
        if self.other is None:
            return isolated
        # Another pack's attention stays as it is, and what the mask changes is changed in it.
        return self.other(q, k, v, options) + (isolated - attend(q, k, v))


@dataclass(frozen=True, eq=False)
class OnAttention:
    """Called with each region's part of a cross-attention: records its map, keeps what its concept adds to to_out."""

    injected: Injection | None

    def __call__(self, seen: RegionAttention, options: Mapping[str, Any]) -> None:
        context = context_of(options)
        if context.pending is None:
            return
        if context.recorder is not None and seen.side == "positive":
            heads, size = options["n_heads"], grid_of(seen.q, options)
            context.recorder.cross_attention(seen.block, seen.part.region, q=seen.q, k=seen.k, heads=heads, size=size)
        added = None if self.injected is None else self.injected.out(seen.block, seen.part.region, seen.own)
        if added is not None:
            waiting = context.pending.setdefault(seen.block, [])
            waiting.append((seen.rows, seen.part.cells, added * seen.part.weights))
