"""Memory of which only what is written is taken."""

from __future__ import annotations

import mmap
from typing import NamedTuple


class Span(NamedTuple):
    """Part of a buffer. ComfyUI counts on the order: who it belongs to, where it begins, how many bytes."""

    owner: VRAMBuffer
    start: int
    size: int


LARGEST = 4 * 2**30
"""A GPU's buffers reserve more addresses than a machine may have memory."""


class VRAMBuffer:
    def __init__(self, max_size: int, _device: int | None = None):
        self.memory = mmap.mmap(-1, min(max_size, LARGEST), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.used = 0

    def size(self) -> int:
        return self.used

    def get(self, size: int, offset: int = 0) -> Span:
        self.used = max(self.used, offset + size)
        return Span(self, offset, size)
