"""Makes weights that ComfyUI loaded under inference mode, or lends for one use, fit for autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..comfy import ComfyModel
from ..compat import differentiable, is_paged, lends_weights, told_of_training


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
def gradients_through(module: nn.Module) -> Iterator[None]:
    """Let gradients through blocks that write into what their backward pass reads: CLIP's, T5's, Flux's, and so on.

    They add to what their norms still need, and newer ones name a tensor to write to, which autograd refuses.
    """
    handles = []
    try:
        for child in module.modules():
            # LTXV gives its cross-attention the very tensor that it adds to next.
            if "Norm" in type(child).__name__ or type(child).__name__ == "CrossAttention":
                handles.append(child.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(), *inputs[1:])))
        with _OnTheTape():
            yield
    finally:
        for handle in handles:
            handle.remove()


_NORMS = ("layer_norm", "rms_norm", "group_norm")


class _OnTheTape(TorchFunctionMode):
    """What autograd refuses, so that it records it: sums into what a layer or a functional norm still needs, `out=` as
    a copy into it, and the host's own fused operations."""

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        tensors = [one for one in (*args, *named.values()) if isinstance(one, Tensor)]
        if not (torch.is_grad_enabled() and any(one.requires_grad for one in tensors)):
            return func(*args, **named)
        name = getattr(func, "__name__", "")
        if name in _NORMS:
            args = (args[0].clone(), *args[1:])
        out = named.pop("out", None)
        result = (differentiable(func) or func)(*args, **named)
        return result if out is None else out.copy_(result)


@contextmanager
def training_mode() -> Iterator[None]:
    """Autograd on, and newer hosts told that it is."""
    with told_of_training(), torch.inference_mode(False), torch.enable_grad():
        yield
