"""How far each step moves the latents, and when the guidance ends."""

from __future__ import annotations

import torch
from torch import Tensor

from .options import ComposerOptions


def step_sizes(steps: int, options: ComposerOptions) -> list[float]:
    """phi of Eq. 10 for each of T steps: step_size * sqrt(linspace(first_scale, last_scale, T)) (the code)."""
    scales = torch.linspace(options.first_scale, options.last_scale, steps, dtype=torch.float64)
    return (options.step_size * scales.sqrt()).tolist()


def goes_on(step: int, loss: Tensor, before: Tensor, options: ComposerOptions) -> Tensor:
    """Which samples are still guided after the step number `step` (from 0): (B,) bool.

    The code's rule: none after `last_step`, and from `patience` on only those whose loss did not rise. loss, before:
    (B,), of this step and of the one before it (infinite at first). What the last step's gradient was is still used.
    """
    if step >= options.last_step:
        return torch.zeros_like(loss, dtype=torch.bool)
    return (loss <= before) if step >= options.patience else torch.ones_like(loss, dtype=torch.bool)
