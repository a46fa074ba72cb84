"""What every stage of the recipe shares: states that survive a kill, and a clock."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch


def half_precision(device: str) -> AbstractContextManager[None]:
    """bfloat16 where it is faster: on a CPU without tiles (AMX) it takes twice as long as float32."""
    faster = device != "cpu" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device, torch.bfloat16, enabled=faster)


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then half a cosine down to nothing."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write beside the old file, then take its place: a kill leaves the old state whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    partial.replace(path)


def load_state(path: Path) -> dict[str, Any] | None:
    return torch.load(path, weights_only=True) if path.is_file() else None


class Clock:
    """Seconds that training took, over all sittings, and when the next checkpoint is due."""

    def __init__(self, spent: float, every: float):
        self.spent, self.every = spent, every
        self.mark = self.saved = time.monotonic()

    def seconds(self) -> float:
        now = time.monotonic()
        self.spent += now - self.mark
        self.mark = now
        return self.spent

    def due(self) -> bool:
        if time.monotonic() - self.saved < self.every:
            return False
        self.saved = time.monotonic()
        return True
