"""Regions in the cross-attention of UNets (SD1.5, SD2, SDXL): Mix-of-Show's regionally controllable sampling.

Keys and values of a region's prompt do not depend on the picture: each layer projects them once in a sampling, when it
first runs. They are projected at every step only where the layer's weights change between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from ...regions import Attend, KeysValues, Part, Plan, Size, plan, regional_attention
from ..text.layerwise import Block, LayerContext
from .prompts import Side
from .session import Call

Replace = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]
"""ComfyUI's attn2_replace: q, k, v (B, n, C), options -> attention before to_out (B, n, C)."""

Project = Callable[[nn.Module, Block, int, Side, Tensor], KeysValues]
"""A cross-attention module, its block, the region's number, its side and its text (1, T, width) -> k, v."""


@dataclass(frozen=True, eq=False)
class RegionAttention:
    """One region's part of a layer's cross-attention.

    rows: of the batch, that part is for. q: (b, N, C) of all cells. k: (b, T, C) of the region's prompt. own:
    (b, n, C), its attention at `part.cells`, before it is weighted.
    """

    block: Block
    side: Side
    rows: slice
    part: Part
    q: Tensor
    k: Tensor
    own: Tensor


OnAttention = Callable[[RegionAttention, Mapping[str, Any]], None]
"""Called with each part, and the host's options of the layer."""


def project(module: Any, _block: Block, _region: int, _side: Side, text: Tensor) -> KeysValues:
    """Keys and values by the layer's own weights."""
    return module.to_k(text), module.to_v(text)


def with_cross_attention(call: Call) -> Call:
    """The call with every cross-attention replaced; what other packs had put there is asked, too."""
    replaced = call.options.get("patches_replace", {})
    others: Mapping[Any, Replace] = replaced.get("attn2", {})
    ours = {block: _Layer(call, block, others.get(block) or others.get(block[:2])) for block in call.layers}
    options = {**call.options, "patches_replace": {**replaced, "attn2": {**others, **ours}}}
    return replace(call, options=options)


@dataclass(frozen=True, eq=False)
class _Layer:
    """attn2_replace of one layer. other: the one that was there before."""

    call: Call
    block: Block
    other: Replace | None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        plain = attention_of(options)(q, k, v)
        regional = self._by_side(q, plain, options)
        if self.other is None:
            return regional
        # Another pack's attention stays as it is, and where regions are, text attention is exchanged in it.
        return self.other(q, k, v, options) + (regional - plain)

    def _by_side(self, q: Tensor, plain: Tensor, options: dict[str, Any]) -> Tensor:
        sides = self.call.sides
        each = q.shape[0] // len(sides)
        parts = []
        for number, (side, own_q, own) in enumerate(zip(sides, q.split(each), plain.split(each), strict=True)):
            rows = slice(number * each, (number + 1) * each)
            parts.append(own if side is None else self._regional(side, rows, own_q, own, options))
        return torch.cat(parts)

    def _regional(self, side: Side, rows: slice, q: Tensor, plain: Tensor, options: dict[str, Any]) -> Tensor:
        on_attention = self.call.session.settings.on_attention

        def on_part(part: Part, k: Tensor, own: Tensor) -> None:
            on_attention(RegionAttention(self.block, side, rows, part, q=q, k=k, own=own), options)

        return regional_attention(
            q,
            plain,
            self._plan(grid_of(q, options), side, q),
            keys_values=partial(self._keys_values, side, q),
            attend=attention_of(options),
            on_part=on_part if on_attention else None,
        )

    def _plan(self, size: Size, side: Side, q: Tensor) -> Plan:
        session = self.call.session

        def make() -> Plan:
            return plan(session.layout_on(size).only(session.prompted(side)), q.device, q.dtype)

        return session.cached((size, side, q.device, q.dtype), make)

    def _keys_values(self, side: Side, q: Tensor, region: int) -> KeysValues:
        session, module = self.call.session, self._module

        def make() -> KeysValues:
            text = session.texts[side][region]
            assert text is not None, "a region without a prompt has no part in the plan"
            own = self._of_layer(text.to(q.device, q.dtype))
            return session.settings.project(module, self.block, region, side, own)

        if self._changes(module):
            return make()
        return session.cached((self.block, side, region, q.device, q.dtype), make)

    @property
    def _module(self) -> Any:
        return self.call.layers[self.block]

    def _of_layer(self, text: Tensor) -> Tensor:
        """The layer's own part of a layer-wise prompt, cut as that of the whole picture's prompt is."""
        patches = self.call.options.get("patches", {}).get("attn2_patch", ())
        for patch in patches:
            if isinstance(patch, LayerContext):
                text = patch.own(text, self.block)
        return text

    def _changes(self, module: Any) -> bool:
        """Whether the layer's weights are of this moment: hooks on the module, or ComfyUI's hooks on weights."""
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in (module.to_k, module.to_v))
        return hooked or getattr(self.call.model.current_patcher, "current_hooks", None) is not None


def attention_of(options: Mapping[str, Any]) -> Attend:
    """The host's own attention, as the layer of these options calls it."""
    return partial(
        optimized_attention,
        heads=options["n_heads"],
        attn_precision=options["attn_precision"],
        transformer_options=options,
    )


def grid_of(q: Tensor, options: Mapping[str, Any]) -> Size:
    """Rows and columns of the tokens `q` (B, N, C). ValueError where the host's do not make N."""
    height, width = options["activations_shape"][-2:]
    if height * width != q.shape[1]:
        raise ValueError(
            f"Regions: expected {height} x {width} tokens in cross-attention, got {q.shape[1]}. "
            "Another node merges or cuts tokens there (Token Merging): switch it off for this model."
        )
    return height, width
