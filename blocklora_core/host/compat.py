"""What newer versions of ComfyUI do otherwise: each difference has one function here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from comfy.sd1_clip import SDTokenizer
from torch import Tensor


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
