"""Makes weights that ComfyUI loaded under inference mode, or lends for one use, fit for autograd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..comfy import ComfyModel
from ..compat import is_paged, lends_weights, told_of_training


def leave_inference_mode(module: nn.Module, on: torch.device | None = None) -> None:
    """Replace every inference tensor among the weights by an equal ordinary one, one at a time.

    Autograd refuses inference tensors. Values, devices and dtypes stay; tied weights stay tied; nothing is left over.
    on: only those on that kind of device; the host copies the others there as ordinary ones each time it uses them.
    So it does with weights in pages, which are left alone: see `with_own_weights`.
    """
    fresh: dict[int, Tensor] = {}

    def ordinary(tensor: Tensor, parameter: bool) -> Tensor:
        if id(tensor) not in fresh:
            clone = tensor.detach().clone()
            fresh[id(tensor)] = nn.Parameter(clone, requires_grad=False) if parameter else clone
        return fresh[id(tensor)]

    for child in (one for one in module.modules() if not is_paged(one)):
        tables: tuple[tuple[dict[str, Any], bool], ...] = ((child._parameters, True), (child._buffers, False))
        for table, parameter in tables:
            for name, tensor in table.items():
                if tensor is not None and tensor.is_inference() and (on is None or tensor.device.type == on.type):
                    table[name] = ordinary(tensor, parameter)


def with_own_weights(patcher: ComfyModel, whole: bool = False) -> ComfyModel:
    """A clone that copies each weight as it is used with gradients, where the host lends weights; else PATCHER itself.

    Autograd keeps a weight until the backward pass, by when lent memory may hold another one: gradients would be wrong
    and nothing would tell. Gradient checkpointing bounds the copies to those of one block. whole: see lends_weights.
    """
    if not lends_weights(patcher, whole):
        return patcher
    clone = patcher.clone()
    for name, module in clone.model.named_modules():
        if hasattr(module, "comfy_cast_weights"):
            for kind in _CAST.intersection(module._parameters):
                clone.add_weight_wrapper(f"{name}.{kind}", _own)
    return clone


_CAST = {"weight", "bias"}


def _own(weight: Tensor) -> Tensor:
    return weight.clone() if torch.is_grad_enabled() and not torch.is_inference_mode_enabled() else weight


@contextmanager
def norms_keep_inputs(module: nn.Module) -> Iterator[None]:
    """Let gradients through blocks that add in place to what their norms still need: CLIP's, Flux's, others'."""
    handles = []
    try:
        for child in module.modules():
            if isinstance(child, nn.LayerNorm):
                handles.append(child.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(), *inputs[1:])))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def training_mode() -> Iterator[None]:
    """Autograd on, and newer hosts told that it is."""
    with told_of_training(), torch.inference_mode(False), torch.enable_grad():
        yield
