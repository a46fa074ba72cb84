"""In which number format a training run computes. Adapters and their optimiser stay float32 in every case."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..comfy import ComfyModel
from ..compat import is_paged, only_format

AUTO = "auto"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _cpu_has_bf16() -> bool:
    # Matrix tiles alone make it quick: with AVX512-BF16 and none, bf16 took 1.4 times as long as float32.
    # Private in torch, so it may go; without it the safe answer is no.
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


def compute_dtype(device: torch.device, precision: str = AUTO) -> torch.dtype:
    """bf16 where the device is quick at it, else float32; or what `precision` names. ValueError when that is none."""
    if precision in PRECISIONS:
        return PRECISIONS[precision]
    if precision != AUTO:
        raise ValueError(f"Precision: expected {AUTO} or one of {', '.join(PRECISIONS)}, got {precision!r}.")
    quick = _cpu_has_bf16() if device.type == "cpu" else comfy.model_management.should_use_bf16(device)
    return torch.bfloat16 if quick else torch.float32


def dtype_for(model: ComfyModel, precision: str) -> torch.dtype:
    """`compute_dtype` on MODEL's device, unless MODEL is quantised so that it computes in one format only: that one."""
    asked = compute_dtype(model.load_device, precision)
    own = next((dtype for weight in model.model.parameters() if (dtype := only_format(weight))), asked)
    if own != asked:
        logging.info("BlockLoRA: this host computes the quantised layers of this model in %s, not in %s", own, asked)
    return own


def computing_in(model: ComfyModel, dtype: torch.dtype) -> ComfyModel:
    """A clone of MODEL that computes in `dtype`, casting weights as it goes; MODEL itself when it does so already."""
    if model.model.get_dtype() == dtype and model.model.manual_cast_dtype is None:
        return model
    clone = model.clone()
    clone.set_model_compute_dtype(dtype)
    return clone


@contextmanager
def held_in(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Until the block ends, keep in `dtype` the wider weights that `module` would cast to it at every use.

    At the end they are as before, bit for bit: meanwhile each waits in the narrowest format that holds it exactly. A
    float16 checkpoint that was loaded in float32 thus takes no more memory than before, one in bfloat16 half of it.
    """
    waiting: list[tuple[nn.Parameter, torch.dtype, Tensor | None]] = []
    try:
        for weight in _cast_weights(module):
            if weight.dtype.itemsize > dtype.itemsize:
                held = weight.data.to(dtype)
                waiting.append((weight, weight.dtype, _exact(weight.data, held)))
                weight.data = held
        yield
    finally:
        # What waited goes as each is put back: the end of a run takes no more memory than the run.
        while waiting:
            weight, whole, kept = waiting.pop()
            weight.data = (weight.data if kept is None else kept).to(weight.device, whole)


def _cast_weights(module: nn.Module) -> Iterator[nn.Parameter]:
    for child in module.modules():
        # The rest, norms and embeddings, is small, and embeddings answer in their weight's own dtype. What is in pages
        # lies elsewhere, and the host casts it as it fills them.
        if isinstance(child, (nn.Linear, _ConvNd)) and getattr(child, "comfy_cast_weights", False):
            yield from () if is_paged(child) else child.parameters(recurse=False)


def _exact(weight: Tensor, held: Tensor) -> Tensor | None:
    """What restores `weight` once only `held` is left of it: None when that is enough."""
    if torch.equal(held.to(weight.dtype), weight):
        return None
    half = weight.half()
    return half if torch.equal(half.to(weight.dtype), weight) else weight
