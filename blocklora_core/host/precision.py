"""In which number format a training run computes. Adapters and their optimiser stay float32 in every case."""

from __future__ import annotations

import comfy.model_management
import torch

from .handles import ComfyModel

AUTO = "auto"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _cpu_has_bf16() -> bool:
    # Private in torch, so it may go; without it the safe answer is no.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def compute_dtype(device: torch.device, precision: str = AUTO) -> torch.dtype:
    """bf16 where the device is quick at it, else float32; or what `precision` names. ValueError when that is none."""
    if precision in PRECISIONS:
        return PRECISIONS[precision]
    if precision != AUTO:
        raise ValueError(f"Precision: expected {AUTO} or one of {', '.join(PRECISIONS)}, got {precision!r}.")
    quick = _cpu_has_bf16() if device.type == "cpu" else comfy.model_management.should_use_bf16(device)
    return torch.bfloat16 if quick else torch.float32


def computing_in(model: ComfyModel, dtype: torch.dtype) -> ComfyModel:
    """A clone of MODEL that computes in `dtype`, casting weights as it goes; MODEL itself when it does so already."""
    if model.model.get_dtype() == dtype and model.model.manual_cast_dtype is None:
        return model
    clone = model.clone()
    clone.set_model_compute_dtype(dtype)
    return clone
