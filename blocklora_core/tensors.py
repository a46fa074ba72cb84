"""A file's tensors made into layers and embeddings, checked on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from . import keys, metadata
from .contents import STOCK
from .lora import Layer
from .rows import Rows, describe, index

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def layer_of(
    stem: str, roles: Mapping[keys.Role, str], tensors: Mapping[str, Tensor], block: tuple[int, Rows] | None = None
) -> Layer:
    """The layer whose tensors' names are `roles` (role -> name). Without an alpha its scale is 1.

    block: (out_features, rows) that the layer must hold, zero elsewhere; None for every row. ValueError for a layer
    that is not sound.
    """
    missing = next((role for role in ("up", "down") if role not in roles), None)
    if missing:
        raise ValueError(f"{stem}: expected up and down, got no {missing}. The file is damaged or not a LoRA.")
    up, down = floats(roles["up"], tensors), floats(roles["down"], tensors)
    if up.ndim < 2 or down.ndim < 2:
        raise ValueError(f"{stem}: expected matrices, got up {tuple(up.shape)} and down {tuple(down.shape)}.")
    out, rows = block or (up.shape[0], metadata.rows_of(stem, up.shape[0], None, None))
    if up.shape[0] != out:
        raise ValueError(f"{stem}: expected {out} rows in up, as the metadata says, got {up.shape[0]}.")
    try:
        alpha = _alpha(tensors[roles["alpha"]]) if "alpha" in roles else down.shape[0]
        return Layer(_cut(up, rows), down, rows, out, alpha / max(down.shape[0], 1))
    except ValueError as error:
        raise ValueError(f"{stem}: {error}") from error


def _cut(up: Tensor, rows: Rows) -> Tensor:
    held = index(rows)
    outside = torch.ones(up.shape[0], dtype=torch.bool)
    outside[held] = False
    if bool(up[outside].any()):
        row = int((up.flatten(1).ne(0).any(1) & outside).nonzero()[0])
        raise ValueError(f"expected zeros outside {describe(rows)}, got others in row {row}. Save the file again.")
    return up[held]


def _alpha(alpha: Tensor) -> float:
    if alpha.numel() != 1:
        raise ValueError(f"expected one number for alpha, got shape {tuple(alpha.shape)}.")
    value = float(alpha.item())
    if not math.isfinite(value):
        raise ValueError(f"expected a finite alpha, got {value}.")
    return value


def embedding_of(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """The embedding called `name`: (tokens, width). ValueError for another shape."""
    value = floats(name, tensors)
    if value.ndim != 2:
        raise ValueError(f"{name}: expected (tokens, width), got {tuple(value.shape)}.")
    return value


def floats(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """The tensor called `name`; ValueError unless it holds finite floating point numbers of 16 bits or more."""
    value = tensors[name]
    if value.dtype not in (*DTYPES, torch.float64):
        raise ValueError(f"{name}: expected floating point numbers of 16 bits or more, got {value.dtype}. {STOCK}")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity. The training diverged.")
    return value
