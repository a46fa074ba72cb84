"""What every stage of the recipe shares: states that survive a kill, and a clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch


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
