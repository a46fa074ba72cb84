"""Makes weights that ComfyUI loaded under inference mode fit for autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..compat import differentiable


def leave_inference_mode(module: nn.Module, on: torch.device | None = None) -> None:
    """Replace every inference tensor among the weights by an equal ordinary one, one at a time.

    Autograd refuses inference tensors. Values, devices and dtypes stay; tied weights stay tied; nothing is left over.
    on: only those on that kind of device; the host copies the others there as ordinary ones each time it uses them.
    """
    fresh: dict[int, Tensor] = {}

    def ordinary(tensor: Tensor, parameter: bool) -> Tensor:
        if id(tensor) not in fresh:
            clone = tensor.detach().clone()
            fresh[id(tensor)] = nn.Parameter(clone, requires_grad=False) if parameter else clone
        return fresh[id(tensor)]

    for child in module.modules():
        tables: tuple[tuple[dict[str, Any], bool], ...] = ((child._parameters, True), (child._buffers, False))
        for table, parameter in tables:
            for name, tensor in table.items():
                if tensor is not None and tensor.is_inference() and (on is None or tensor.device.type == on.type):
                    table[name] = ordinary(tensor, parameter)


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
    """Autograd on, and newer hosts told that a training runs so that they keep weights where they are."""
    management = comfy.model_management
    told = hasattr(management, "in_training")
    before = getattr(management, "in_training", False)
    if told:
        management.in_training = True
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        if told:
            management.in_training = before
