"""What a merge costs in time and memory."""

from __future__ import annotations

import time

import comfy.model_management
import torch

from ..comfy import ComfyClip, ComfyModel, ComfyVae

Base = tuple[ComfyModel, ComfyClip, ComfyVae]


def load(model: ComfyModel, clip: ComfyClip) -> None:
    comfy.model_management.load_models_gpu([model, clip.patcher])


class MergeCost:
    """Seconds of a merge onto loaded models, and on CUDA the memory that it takes on top of them."""

    def __init__(self, base: Base):
        self.base, self.device = base, base[0].load_device
        self.seconds = 0.0
        self.peak_bytes: int | None = None

    def __enter__(self) -> MergeCost:
        load(*self.base[:2])
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_raised: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        self.seconds = time.perf_counter() - self._started
