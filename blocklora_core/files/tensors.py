"""A file's tensors made into layers and embeddings, checked on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..concept import adapters
from ..concept.adapters import Adapter
from ..concept.layer import Layer
from ..concept.rows import Rows, describe
from . import dialects
from .contents import STOCK, changes_of, kind_of
from .record import Held, rows_of

MOST_KERNEL, MOST_NUMBERS = 16, 2**26
"""Of a side of a convolution, and of what a decomposed layer may become: above those of any model."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

# Their numbers are float16's as well.
_BYTES = (torch.float8_e4m3fn, torch.float8_e5m2)


class OddLayerError(ValueError):
    """A layer's tensors cannot be multiplied; the stock loader goes on without such a layer."""


def layer_of(
    stem: str, roles: Mapping[dialects.Role, str], tensors: Mapping[str, Tensor], block: Held | None = None
) -> Layer:
    """The layer whose tensors' names are `roles` (role -> name). Without an alpha its scale is 1.

    block: what the layer must hold, zero elsewhere; None for every row. ValueError for a layer that is not sound.
    """
    missing = next((role for role in ("up", "down") if role not in roles), None)
    if missing:
        raise ValueError(f"{stem}: expected up and down, got no {missing}. The file is damaged or not a LoRA.")
    up, down = _numbers(roles["up"], tensors), _numbers(roles["down"], tensors)
    if "mid" in roles:
        down = _with_kernel(stem, down, floats(roles["mid"], tensors))
    shapes = f"got up {tuple(up.shape)} and down {tuple(down.shape)}"
    if up.ndim < 2 or down.ndim < 2:
        raise OddLayerError(f"{stem}: expected matrices, {shapes}.")
    if not up.numel() or not down.numel():
        raise OddLayerError(f"{stem}: expected a rank of at least 1 and some rows, {shapes}.")
    out, rows, parts = block or Held(up.shape[0], rows_of(stem, up.shape[0], None, None))
    if up.shape[0] != out:
        raise ValueError(f"{stem}: expected {out} rows in up, as the metadata says, got {up.shape[0]}.")
    try:
        alpha = _alpha(tensors[roles["alpha"]]) if "alpha" in roles else down.shape[0]
        held = _cut(roles["up"], up, rows)
    except ValueError as error:
        raise ValueError(f"{stem}: {error}") from error
    try:
        layer = Layer(held, down, rows, out, alpha / max(down.shape[0], 1), parts)
    except ValueError as error:
        raise OddLayerError(f"{stem}: {error}") from error
    if not math.isfinite(layer.reach):
        _check_finite(roles["up"], held)
        _check_finite(roles["down"], down)
    return layer


def adapter_of(stem: str, words: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Adapter:
    """The layer of another kind than LoRA whose tensors are `words` (last words -> name). ValueError when it is not
    sound."""
    kind, changes = kind_of(words), changes_of(words)
    if len(changes) > 1:
        raise ValueError(f"{stem}: expected one change of a weight, got {', '.join(changes)}. Export the file again.")
    lacking = adapters.missing(kind, words)
    if lacking:
        raise OddLayerError(
            f"{stem}: expected all parts of a {kind}, got no {', '.join(lacking)}. The file is damaged or of a variant "
            "that ComfyUI does not know."
        )
    values = {word: floats(name, tensors) for word, name in words.items()}
    if "alpha" in values:
        _alpha(values["alpha"])
    if "lora_magnitude_vector" in words.get("dora_scale", ""):
        # PEFT's lies flat, one number a row.
        values["dora_scale"] = values["dora_scale"].reshape(-1, *[1] * (values["lora_up.weight"].ndim - 1))
    if "lokr_t2" in values and "lokr_w2" not in values:
        values = _without_core(stem, values)
    return Adapter(adapters.title(kind, words), values)


def _with_kernel(stem: str, down: Tensor, mid: Tensor) -> Tensor:
    """The down of a plain LoRA for LoCon's Tucker decomposition of a convolution: mid (r, r, kh, kw) after down
    (r, n, 1, 1) is one kernel (r, n, kh, kw), in at least float32.
    """
    rank = down.shape[0]
    if down.ndim < 3 or mid.ndim != down.ndim or mid.shape[:2] != (rank, rank) or any(s != 1 for s in down.shape[2:]):
        raise ValueError(
            f"{stem}: expected down (r, n, 1, 1) and mid (r, r, kh, kw), got {tuple(down.shape)} and "
            f"{tuple(mid.shape)}. The file is damaged."
        )
    if max(mid.shape[2:]) > MOST_KERNEL:
        got = tuple(mid.shape)
        raise ValueError(f"{stem}: expected a kernel of at most {MOST_KERNEL} a side, got {got}. The file is damaged.")
    _check_numbers(stem, down.numel() // max(rank, 1) * mid.numel() // max(rank, 1))
    dtype = torch.promote_types(torch.promote_types(down.dtype, mid.dtype), torch.float32)
    return torch.einsum("ij...,jn->in...", mid.to(dtype), down.flatten(1).to(dtype))


def _without_core(stem: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """LyCORIS' LoKr whose second factor is a Tucker decomposition, as one whose second factor is whole.

    t2 (r, r, kh, kw), w2_a (r, m), w2_b (r, n); alpha goes with its rank, so both are in w2. ComfyUI's own adapter
    fails on these parts and says so in the log alone.
    """
    core, a, b = (values[f"lokr_{name}"].float() for name in ("t2", "w2_a", "w2_b"))
    rank = b.shape[0]
    if core.ndim < 3 or core.shape[:2] != (rank, rank) or a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank:
        raise ValueError(
            f"{stem}: expected t2 (r, r, kh, kw), w2_a (r, m) and w2_b (r, n) of a LoKr, got {tuple(core.shape)}, "
            f"{tuple(a.shape)} and {tuple(b.shape)}. The file is damaged."
        )
    # Where only the first factor is low-rank as well, ComfyUI takes the rank from the second, as here.
    scale = _alpha(values["alpha"]) / rank if "alpha" in values else 1.0
    _check_numbers(stem, a.shape[1] * b.shape[1] * math.prod(core.shape[2:]))
    whole = (torch.einsum("ij...,jr,ip->pr...", core, b, a) * scale).contiguous()  # else kron fails
    dropped = ("lokr_t2", "lokr_w2_a", "lokr_w2_b", "alpha")
    kept = {word: value for word, value in values.items() if word not in dropped}
    if "lokr_w1_a" in kept:
        left, right = kept.pop("lokr_w1_a").float(), kept.pop("lokr_w1_b").float()
        _check_numbers(stem, left.shape[0] * right.shape[-1])
        kept["lokr_w1"] = left @ right
    return {**kept, "lokr_w2": whole}


def _check_numbers(stem: str, count: int) -> None:
    """ValueError where a few numbers of the file would become very many."""
    if count > MOST_NUMBERS:
        raise ValueError(
            f"{stem}: expected a layer of at most {MOST_NUMBERS} numbers, got {count}. The file is damaged."
        )


def _check_finite(name: str, value: Tensor) -> None:
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity. The training diverged.")


def _cut(name: str, up: Tensor, rows: Rows) -> Tensor:
    ends = [0, *(end for part in rows for end in (part.start, part.stop)), up.shape[0]]
    for start, stop in zip(ends[::2], ends[1::2], strict=True):
        if start < stop and bool(up[start:stop].any()):
            _check_finite(name, up)
            row = start + int(up[start:stop].flatten(1).ne(0).any(1).nonzero()[0])
            raise ValueError(f"expected zeros outside {describe(rows)}, got others in row {row}. Save the file again.")
    held = [up[part.start : part.stop] for part in rows]
    return held[0] if len(held) == 1 else torch.cat([up[:0], *held])


def _alpha(alpha: Tensor) -> float:
    if alpha.numel() != 1 or alpha.is_complex():
        raise ValueError(f"expected one real number for alpha, got {alpha.dtype} of shape {tuple(alpha.shape)}.")
    value = float(alpha.item())
    if not math.isfinite(value):
        raise ValueError(f"expected a finite alpha, got {value}.")
    return value


def embedding_of(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """The embedding called `name`: (tokens, width), or (layers, tokens, width). ValueError for another shape."""
    value = floats(name, tensors)
    if value.ndim not in (2, 3):
        raise ValueError(f"{name}: expected (tokens, width) or (layers, tokens, width), got {tuple(value.shape)}.")
    return value


def floats(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """The tensor called `name`, float16 for one of 8 bits; ValueError unless it holds finite floating point numbers."""
    value = _numbers(name, tensors)
    _check_finite(name, value)
    return value


def _numbers(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    value = tensors[name]
    if value.dtype in _BYTES:
        value = value.to(torch.float16)
    if value.dtype not in (*DTYPES, torch.float64):
        raise ValueError(f"{name}: expected floating point numbers of 16 bits or more, got {value.dtype}. {STOCK}")
    return value
