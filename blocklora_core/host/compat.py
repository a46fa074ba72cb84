"""What newer versions of ComfyUI do otherwise: each difference has one function here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import torch
from comfy.sd1_clip import SDTokenizer
from torch import Tensor, nn

from .comfy import ComfyModel


@cache
def _embedding_answer() -> int:
    # The host's own answer for a name that no folder holds tells how many parts it wants.
    nothing = SimpleNamespace(embedding_directory=[], embedding_size=1, embedding_key="")
    return len(SDTokenizer._try_get_embedding(nothing, "none"))


def embedding_found(vectors: Tensor | None, name: str, leftover: str) -> tuple[Any, ...]:
    """What `SDTokenizer._try_get_embedding` returns: (vectors, leftover), from 0.28.0 on (vectors, name, leftover)."""
    return (vectors, leftover) if _embedding_answer() == 2 else (vectors, name, leftover)


def only_format(weight: Tensor) -> torch.dtype | None:
    """The one format that a layer of this quantised weight computes in; None where it takes any, as on newer hosts."""
    found: torch.dtype | None = getattr(weight, "_layout_params", {}).get("orig_dtype")
    return found


def differentiable(func: Any) -> Callable[..., Any] | None:
    """The same sum as an operation of ComfyUI's kitchen, in torch's own functions, for which there are gradients.

    None for any other function. Some models of newer hosts (Cosmos, Anima) use these operations in training as well.
    """
    space, _, name = str(getattr(func, "_qualified_op_name", func)).replace("::", ".").partition(".")
    if space != "comfy_kitchen":
        return None
    plain: Callable[..., Any] | None = getattr(
        importlib.import_module("comfy_kitchen.backends.eager.rope"), name.partition(".")[0], None
    )
    return plain


def axes_of_words(network: nn.Module) -> Any:
    """The axes on which a Flux gives places to words, as Flux.2 does; None where the host knows none that do."""
    return getattr(network.params, "txt_ids_dims", None)


def loaded_dtype(module: nn.Module, name: str) -> torch.dtype | None:
    """What the weight `name` of `module` is on its device, where it may be stored in another; None where it says."""
    found: torch.dtype | None = getattr(module, f"{name}_comfy_model_dtype", None)
    return found


@contextmanager
def told_of_training() -> Iterator[None]:
    """Newer hosts know that gradients flow, and take no shortcut that has none."""
    management = comfy.model_management
    if not hasattr(management, "in_training"):
        yield
        return
    before, management.in_training = management.in_training, True
    try:
        yield
    finally:
        management.in_training = before


def is_dynamic(patcher: ComfyModel) -> bool:
    """Whether weights are brought to the device at each use (Dynamic VRAM), NVIDIA's default from 0.16.0 on."""
    asked = getattr(patcher, "is_dynamic", None)
    return bool(asked and asked())


def unload(patcher: ComfyModel) -> None:
    """Let one model, and clones of it, leave its device; of the hosts only newer ones have a function for it."""
    management = comfy.model_management
    others = [one for one in management.current_loaded_models if one.model is None or not one.model.is_clone(patcher)]
    management.free_memory(1e30, patcher.load_device, keep_loaded=others)


def total_memory(device: torch.device) -> int:
    """Bytes of the device, of a CPU those of the machine."""
    return int(comfy.model_management.get_total_memory(device))


def is_paged(module: nn.Module) -> bool:
    """Whether Dynamic VRAM keeps this module's weights in pages: its own parameters are where these are filled from."""
    return hasattr(module, "_v")


def loaded_weights(patcher: ComfyModel) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each weight of a loaded model, patches included: in pages they come to it only at its use."""
    for prefix, module in patcher.model.named_modules():
        for name, weight in module.named_parameters(prefix, recurse=False):
            due = is_paged(module) and name in patcher.patches
            yield name, patcher.patch_weight_to_device(name, weight.device, return_weight=True) if due else weight


def lends_weights(patcher: ComfyModel, whole: bool) -> bool:
    """Whether a weight on the device may be memory that the host fills with another one later on.

    Pages of Dynamic VRAM are taken back, and what has no room is cast through buffers that two streams share. whole:
    PATCHER is loaded with `force_full_load`, which only Dynamic VRAM disregards.
    """
    management = comfy.model_management
    shared = hasattr(management, "get_cast_buffer") and management.NUM_STREAMS > 0
    return is_dynamic(patcher) or (shared and not whole)
