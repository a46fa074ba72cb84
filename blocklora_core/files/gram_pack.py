"""Grams as one tensor and its index, as a file holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..concept.gram import SCALES, Gram, Grams

PACK_VERSION = 1

_VECTORS = {"float16": torch.float16, "float32": torch.float32}

_VECTOR_NAMES = {dtype: name for name, dtype in _VECTORS.items()}


def pack(grams: Grams) -> tuple[Tensor, dict[str, Any]]:
    """All Grams as one uint8 tensor (bytes,) and the JSON-able index that `unpack` needs.

    One tensor, because stock loaders complain about every tensor they do not know. Deterministic.
    """
    chunks: list[Tensor] = []
    inputs: dict[str, Any] = {}
    for key in sorted(grams.inputs):
        gram = grams.inputs[key]
        vectors = gram.vectors if gram.vectors.dtype in _VECTOR_NAMES else gram.vectors.float()
        inputs[key] = {"n": gram.size, "k": gram.values.shape[0], "vectors": _VECTOR_NAMES[vectors.dtype]}
        chunks += [gram.values.to(SCALES), gram.diagonal.to(SCALES), vectors]
    index = {"version": PACK_VERSION, "inputs": inputs, "layers": dict(sorted(grams.input_of.items()))}
    return torch.cat([_to_bytes(chunk) for chunk in chunks] or [torch.empty(0, dtype=torch.uint8)]), index


def unpack(packed: Tensor, index: Mapping[str, Any]) -> Grams:
    """Inverse of `pack`. ValueError when tensor and index do not belong together."""
    if index.get("version") != PACK_VERSION:
        raise ValueError(f"Grams: expected version {PACK_VERSION}, got {index.get('version')!r}. Update the pack.")
    if packed.dtype != torch.uint8 or packed.ndim != 1:
        raise ValueError(f"Grams: expected one row of uint8, got {packed.dtype} {tuple(packed.shape)}.")
    entries, layers = _read_index(index)
    reader = _Reader(packed)
    inputs = {key: entry.read(reader) for key, entry in sorted(entries.items())}
    reader.finish()
    return Grams(inputs, layers)


class _Reader:
    """Takes tensors one after the other from a row of bytes."""

    def __init__(self, packed: Tensor) -> None:
        self.packed = packed.contiguous()
        self.at = 0

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        if self.at + size > self.packed.numel():
            raise ValueError(f"Grams: expected more than {self.packed.numel()} bytes. The file is damaged.")
        chunk = self.packed[self.at : self.at + size].clone()
        self.at += size
        return chunk.view(dtype).reshape(shape)

    def finish(self) -> None:
        if self.at != self.packed.numel():
            raise ValueError(f"Grams: expected {self.at} bytes, got {self.packed.numel()}. The file is damaged.")


@dataclass(frozen=True)
class _Entry:
    """One Gram in the index: its sizes and the dtype of its vectors."""

    n: int
    k: int
    vectors: str

    def __post_init__(self) -> None:
        if not (_is_size(self.n) and _is_size(self.k) and self.vectors in _VECTORS):
            raise ValueError(f"expected sizes and a known dtype, got {self}")

    def read(self, reader: _Reader) -> Gram:
        values, diagonal = reader.take((self.k,), SCALES), reader.take((self.n,), SCALES)
        return Gram(reader.take((self.n, self.k), _VECTORS[self.vectors]), values, diagonal)


def _read_index(index: Mapping[str, Any]) -> tuple[dict[str, _Entry], dict[str, str]]:
    try:
        entries = {key: _Entry(**entry) for key, entry in index["inputs"].items()}
        layers = dict(index["layers"].items())
        sound = all(key in entries for key in layers.values())
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"Grams: expected an index of inputs and layers, got a damaged one: {error}.") from error
    if not sound:
        raise ValueError("Grams: expected known inputs in the index, got a damaged one.")
    return entries, layers


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _to_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
