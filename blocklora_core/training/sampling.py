"""A plain Euler sampler, for previews and for collecting Grams."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .port import Conditioning, Port

OnStep = Callable[[int], None]
"""Called after each step with the number of steps done."""


def ignore(_step: int) -> None:
    """For callers who do not watch the steps."""


def schedule(port: Port, steps: int) -> Tensor:
    """`steps` noise levels spread evenly over the model's own, descending, then 0: (steps + 1,)."""
    levels = port.sigmas
    at = torch.linspace(len(levels) - 1, 0, steps).round().long()
    return torch.cat([levels[at], levels.new_zeros(1)])


@torch.no_grad()
def euler(
    port: Port,
    noise: Tensor,
    conditioning: Conditioning,
    steps: int,
    cfg: float = 1.0,
    negative: Conditioning | None = None,
    on_step: OnStep = ignore,
) -> Tensor:
    """Latents (B, C, H, W) sampled from unit `noise`; without `negative` no classifier-free guidance."""
    sigmas = schedule(port, steps).to(noise)
    batch = noise.shape[0]
    x = port.add_noise(torch.zeros_like(noise), noise, sigmas[:1].expand(batch))
    for step, (now, after) in enumerate(pairwise(sigmas), 1):
        clean = port.predict(x, now.expand(batch), conditioning)
        if negative is not None:
            other = port.predict(x, now.expand(batch), negative)
            clean = other + cfg * (clean - other)
        x = x + (x - clean) / now * (after - now)
        on_step(step)
    return x
