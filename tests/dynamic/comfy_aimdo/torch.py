"""Spans of memory as tensors, new ones at each call."""

from __future__ import annotations

from typing import Any

import torch

from .vram_buffer import Span


def aimdo_to_tensor(span: Span, _device: Any) -> torch.Tensor:
    return torch.frombuffer(span.owner.memory, dtype=torch.uint8, count=span.size, offset=span.start)


def get_torch_allocator() -> None: ...
