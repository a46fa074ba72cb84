"""Pages of weights. Tests say how much room there is: see `ROOM`."""

from __future__ import annotations

from typing import Any

from .vram_buffer import Span, VRAMBuffer

ROOM = "all"
"""all: what was filled stays. none: no page is ever got. fleeting: a page is another's as soon as nobody holds it."""
ALIGNED = 512
GARBAGE = b"\x7f"


class ModelVBAR(VRAMBuffer):
    def __init__(self, size: int, device: int | None = None):
        super().__init__(size + 2**20, device)
        self.filled: dict[int, int] = {}

    def alloc(self, size: int) -> Span:
        return self.get(size, -(-self.used // ALIGNED) * ALIGNED)

    def prioritize(self) -> None: ...

    def loaded_size(self) -> int:
        return 0 if ROOM == "none" else self.used

    def free_memory(self, _wanted: int) -> int:
        for start in self.filled:
            self.filled[start] += 1
        self.memory[: self.used] = GARBAGE * self.used
        return self.used

    def take(self, span: Span) -> None:
        self.filled[span.start] = self.filled.get(span.start, 0) + 1
        self.memory[span.start : span.start + span.size] = GARBAGE * span.size


def vbar_fault(span: Any) -> tuple[int, int] | None:
    """What tells one filling of a page from another; None where there is no room."""
    return None if ROOM == "none" else (span.start, span.owner.filled.setdefault(span.start, 0))


def vbar_unpin(span: Any) -> None:
    if ROOM == "fleeting" and span is not None:
        span.owner.take(span)


def vbar_signature_compare(one: Any, other: Any) -> bool:
    return one is not None and one == other


def vbars_reset_watermark_limits() -> None: ...


def vbars_analyze(_device: int | None = None) -> int:
    return 0
