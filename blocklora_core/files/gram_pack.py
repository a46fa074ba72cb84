"""Grams as one tensor and its index, as a file holds them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..concept.gram import SCALES, Gram, Grams
from .untrusted.header import FileError, Stored

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
    found = Index.of(index)
    return Grams(found.unpack(packed), found.layers)


@dataclass(frozen=True)
class Index:
    """What is packed. entries: by input id; layers: layer -> input id."""

    entries: Mapping[str, _Entry]
    layers: Mapping[str, str]

    @classmethod
    def of(cls, index: Mapping[str, Any]) -> Index:
        """ValueError for an index of another version, or a damaged one."""
        if index.get("version") != PACK_VERSION:
            raise ValueError(f"Grams: expected version {PACK_VERSION}, got {index.get('version')!r}. Update the pack.")
        try:
            entries = {key: _Entry(**entry) for key, entry in index["inputs"].items()}
            layers = dict(index["layers"].items())
            sound = all(key in entries for key in layers.values())
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"Grams: expected an index of inputs and layers, got a damaged one: {error}.") from error
        if not sound:
            raise ValueError("Grams: expected known inputs in the index, got a damaged one.")
        return cls(entries, layers)

    @property
    def size(self) -> int:
        """Bytes of what is packed."""
        return sum(entry.size for entry in self.entries.values())

    @property
    def sizes(self) -> dict[str, int]:
        """Layer -> n of its Gram."""
        return {name: self.entries[key].n for name, key in self.layers.items()}

    def check(self, size: int) -> None:
        """ValueError unless what is packed takes `size` bytes."""
        if self.size != size:
            wanted = f"more than {size}" if self.size > size else f"{self.size}"
            raise ValueError(f"Grams: expected {wanted} bytes, got {size}. The file is damaged.")

    def unpack(self, packed: Tensor) -> dict[str, Gram]:
        """The Grams in `packed`, by input id. ValueError where it is not what the index says."""
        if packed.dtype != torch.uint8 or packed.ndim != 1:
            raise ValueError(f"Grams: expected one row of uint8, got {packed.dtype} {tuple(packed.shape)}.")
        self.check(packed.numel())
        reader = _Reader(packed)
        return {key: entry.read(reader) for key, entry in sorted(self.entries.items())}

    def later(self, packed: Stored) -> Grams:
        """The Grams in a file, read and unpacked when the first of them is asked for, which is then a FileError where
        they are not what the index says."""
        return Grams(_Later(self, packed), self.layers)


class _Later(Mapping[str, Gram]):
    """Grams by input id, unpacked once somebody asks for one."""

    def __init__(self, index: Index, packed: Stored) -> None:
        self._index, self._packed = index, packed

    @cached_property
    def _unpacked(self) -> dict[str, Gram]:
        try:
            return self._index.unpack(self._packed.read())
        except FileError:
            raise
        except ValueError as error:
            raise FileError(f"{self._packed.path}: {error}") from error

    def __getitem__(self, key: str) -> Gram:
        return self._unpacked[key]

    def __contains__(self, key: object) -> bool:
        return key in self._index.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.entries)

    def __len__(self) -> int:
        return len(self._index.entries)


class _Reader:
    """Takes tensors one after the other from a row of bytes."""

    def __init__(self, packed: Tensor) -> None:
        self.packed = packed.contiguous()
        self.at = 0

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        chunk = self.packed[self.at : self.at + size].clone()
        self.at += size
        return chunk.view(dtype).reshape(shape)


@dataclass(frozen=True)
class _Entry:
    """One Gram in the index: its sizes and the dtype of its vectors."""

    n: int
    k: int
    vectors: str

    def __post_init__(self) -> None:
        if not (_is_size(self.n) and _is_size(self.k) and self.vectors in _VECTORS):
            raise ValueError(f"expected sizes and a known dtype, got {self}")

    @property
    def size(self) -> int:
        """In bytes."""
        return (self.k + self.n) * SCALES.itemsize + self.n * self.k * _VECTORS[self.vectors].itemsize

    def read(self, reader: _Reader) -> Gram:
        values, diagonal = reader.take((self.k,), SCALES), reader.take((self.n,), SCALES)
        return Gram(reader.take((self.n, self.k), _VECTORS[self.vectors]), values, diagonal)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _to_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
