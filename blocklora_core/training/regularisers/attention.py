"""Attention regularisation (Mix-of-Show's code): V_rand shall not be looked at from outside the concept's mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapters.hooks import hooked
from ..port import CrossAttention


class AttentionRecorder:
    """Keeps what the cross-attentions' to_q and to_k gave in the last forward pass, with their gradients."""

    def __init__(self, attentions: Sequence[CrossAttention]):
        self.attentions = attentions
        self._seen: dict[nn.Module, Tensor] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Forward hooks, gone when the block ends. Enter after the adapters', so that their part is seen."""
        modules = [module for attention in self.attentions for module in (attention.to_q, attention.to_k)]
        try:
            with hooked(module.register_forward_hook(self._keep(module)) for module in modules):
                yield
        finally:
            self._seen.clear()

    def _keep(self, module: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # Not the frozen model's pass. And gradient checkpointing computes the same again in the backward pass, when
            # the loss holds the first already.
            if torch.is_grad_enabled():
                self._seen.setdefault(module, output)

        return keep

    def loss(self, masks: Tensor, at: Sequence[int | None]) -> Tensor:
        """Mean over layers of the squared attention to V_rand outside the masks, relative to its peak in each picture.

        masks (B, 1, H, W) in latents' pixels; at: V_rand's place in each of the first B prompts, None where it is not.
        Forgets the pass.
        """
        rows = [row for row, place in enumerate(at) if place is not None]
        places = [place for place in at if place is not None]
        seen, self._seen = self._seen, {}
        if not rows:
            return masks.new_zeros(())
        parts = [_outside(attention, seen, masks[rows], rows, places) for attention in self.attentions]
        return torch.stack(parts).mean()


def _outside(
    attention: CrossAttention, seen: Mapping[nn.Module, Tensor], masks: Tensor, rows: list[int], places: list[int]
) -> Tensor:
    query, key = (_heads(seen[module], attention.heads)[rows] for module in (attention.to_q, attention.to_k))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    looked = scores.softmax(-1).mean(1)[torch.arange(len(rows)), :, places]
    relative = looked / looked.detach().amax(1, keepdim=True).clamp(min=1e-8)
    outside = 1 - _scaled(masks.to(relative), looked.shape[1])
    return (relative * outside).square().mean()


def _heads(projected: Tensor, heads: int) -> Tensor:
    """(B, n, heads * d) -> (B, heads, n, d), in float32 as softmax needs."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2).float()


def _scaled(masks: Tensor, pixels: int) -> Tensor:
    """(B, 1, H, W) -> (B, pixels) at the layer's own size, a power of two below H x W."""
    height, width = masks.shape[-2:]
    factor = (height * width / pixels) ** 0.5
    size = (-(-height // round(factor)), -(-width // round(factor)))
    return F.interpolate(masks, size=size, mode="area").flatten(1)
