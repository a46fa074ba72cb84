"""Attention regularisation (Mix-of-Show's code): V_rand shall not be looked at from outside the concept's mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapters.hooks import hooked
from ..port import CrossAttention


class AttentionRecorder:
    """Keeps what the cross-attentions' to_q and to_k gave while it watched, with their gradients, pass by pass."""

    def __init__(self, attentions: Sequence[CrossAttention]):
        self.attentions = attentions
        self._seen: dict[nn.Module, list[Tensor]] = {}
        self._watches = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Forward hooks, gone when the block ends. Enter after the adapters', so that their part is seen."""
        modules = [module for attention in self.attentions for module in (attention.to_q, attention.to_k)]
        try:
            with hooked(module.register_forward_hook(self._keep) for module in modules):
                yield
        finally:
            self._seen = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the prediction alone: gradient checkpointing computes the same again in the backward pass."""
        self._seen, self._watches = {}, True
        try:
            yield
        finally:
            self._watches = False

    def _keep(self, module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self._watches:
            self._seen.setdefault(module, []).append(output)

    def loss(self, masks: Tensor, at: Sequence[int | None], passes: Sequence[Sequence[int]]) -> Tensor:
        """Mean over layers of the squared attention to V_rand outside the masks, relative to its peak in each picture.

        masks (B, 1, H, W) in latents' pixels; at: V_rand's place in each of the first B prompts, None where it is not;
        passes: numbers of the prompts in each of the model's passes. Forgets the prediction.
        """
        seen, self._seen = self._seen, {}
        parts = [
            _outside(attention, query, key, masks, at, rows)
            for attention in self.attentions
            for query, key, rows in zip(seen[attention.to_q], seen[attention.to_k], passes, strict=True)
        ]
        return torch.cat(parts).mean() if any(map(len, parts)) else masks.new_zeros(())


def _outside(
    attention: CrossAttention,
    query: Tensor,
    key: Tensor,
    masks: Tensor,
    at: Sequence[int | None],
    rows: Sequence[int],
) -> Tensor:
    """Of each picture of one pass whose prompt has V_rand: (pictures,)."""
    places = {row: place for row, place in enumerate(at) if place is not None}
    held = [number for number, row in enumerate(rows) if row in places]
    if not held:
        return masks.new_zeros(0)
    query, key = (_heads(projected[held], attention.heads) for projected in (query, key))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    looked = scores.softmax(-1).mean(1)[torch.arange(len(held)), :, [places[rows[number]] for number in held]]
    relative = looked / looked.detach().amax(1, keepdim=True).clamp(min=1e-8)
    outside = 1 - _scaled(masks[[rows[number] for number in held]].to(relative), looked.shape[1])
    return (relative * outside).square().mean(1)


def _heads(projected: Tensor, heads: int) -> Tensor:
    """(B, n, heads * d) -> (B, heads, n, d), in float32 as softmax needs."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2).float()


def _scaled(masks: Tensor, pixels: int) -> Tensor:
    """(B, 1, H, W) -> (B, pixels) at the layer's own size: H x W, halved level by level, each rounded up."""
    height, width = masks.shape[-2:]
    while height * width > pixels:
        height, width = -(-height // 2), -(-width // 2)
    return F.interpolate(masks, size=(height, width), mode="area").flatten(1)
