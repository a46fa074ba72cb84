"""A safetensors file opened: its header checked number by number before any tensor is made, and only once."""

from __future__ import annotations

import io
import json
import math
import os
import stat
import struct
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from .json_text import has_half_letters

METADATA = "__metadata__"
PREFIX = struct.Struct("<Q")
MOST_BYTES = 16 * 2**20
"""Of a header: those of the largest LoRAs have one or two million."""
MOST_TENSORS = 2**16
MOST_MESSAGE = 1000
"""Letters of an error that tells what stands in a file."""
KEPT_HEADERS = 128
"""Of files that do not change: a merge of sixty files and a look at their folder."""
_YOUNG = 2 * 10**9
"""Nanoseconds in which a file may change again without its times telling."""
_AGAIN = "Download it again or convert it."
DAMAGED = f"expected a safetensors file, got something else or a damaged file. {_AGAIN}"

_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64,
}  # fmt: skip


class FileError(ValueError):
    """A file cannot be read or written; says what was expected, what came and what to do."""

    def __init__(self, message: str):
        half = MOST_MESSAGE // 2
        super().__init__(message if len(message) <= MOST_MESSAGE else f"{message[:half]} ... {message[-half:]}")


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The safetensors header, without reading any tensor: name -> {dtype, shape, data_offsets},
    `__metadata__`.

    FileError when the file is missing, is no safetensors file or is not complete.
    """
    with _opened(Path(path)) as file:
        return dict(_known(Path(path), file).header)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of a safetensors file, copied: what becomes of the file afterwards does not change them.

    FileError as in `read_header`, and when the file changes while it is read.
    """
    return read_parts(path, ())[0]


def read_parts(path: str | os.PathLike[str], later: Collection[str]) -> tuple[dict[str, Tensor], dict[str, Stored]]:
    """As `read_tensors`, but the tensors called `later` are only looked up."""
    path = Path(path)
    with _opened(path) as file:
        known = _known(path, file)
        entries = {name: entry for name, entry in known.header.items() if name != METADATA}
        stored = {name: Stored(path, known.state, entries.pop(name), known.start) for name in later if name in entries}
        tensors: dict[str, Tensor] = {}
        for start, run in _runs(entries):
            file.seek(known.start + start)
            data = bytearray(max(entry["data_offsets"][1] for entry in run.values()) - start)
            file.readinto(data)
            tensors |= {name: _tensor(data, entry, start) for name, entry in run.items()}
        if _state(file) != known.state:
            raise FileError(f"{path}: expected a file at rest, got one that changed while it was read. Try again.")
    return tensors, stored


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, read when somebody asks. entry: its own in the header; start: of the file's first tensor."""

    path: Path
    state: State
    entry: Mapping[str, Any]
    start: int

    @property
    def is_bytes(self) -> bool:
        """Whether it is one row of uint8."""
        return self.entry["dtype"] == "U8" and len(self.entry["shape"]) == 1

    @property
    def size(self) -> int:
        """In bytes."""
        start, end = self.entry["data_offsets"]
        return int(end - start)

    def read(self) -> Tensor:
        """Its bytes, uint8 (size,). FileError unless the file is the one that was looked at."""
        data = bytearray(self.size)
        with _opened(self.path) as file:
            file.seek(self.start + self.entry["data_offsets"][0])
            file.readinto(data)
            if _state(file).content != self.state.content:
                raise FileError(f"{self.path}: expected the file as it was, got one that has changed. Load it again.")
        return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def tensors_in(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file's bytes; `path` is for messages. FileError as in `read_header`."""
    file = io.BytesIO(data)
    header = _header(path, file)
    body = bytearray(file.read())
    tensors = {name: _tensor(body, entry) for name, entry in header.items() if name != METADATA}
    return tensors, header.get(METADATA, {})


def read_whole(path: Path) -> bytes:
    """All bytes of an ordinary file. FileError when it cannot be read."""
    with _opened(path) as file:
        return file.read()


def unreadable(path: Path, error: OSError) -> FileError:
    """The error for a file that the system does not open."""
    if isinstance(error, FileNotFoundError):
        return FileError(f"{path}: expected a file, got none. Check the name and the folder.")
    return FileError(f"{path}: expected a readable file, got: {error.strerror}.")


def check_ordinary(path: Path) -> None:
    """FileError for anything but an ordinary file: opening a pipe would wait for its other end. OSError for none."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileError(f"{path}: expected a readable file, got a folder, a pipe or a device. Choose another.")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        check_ordinary(path)
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error


class State(NamedTuple):
    """What tells a file from another in its place, and from itself once it was written to."""

    size: int
    modified: int
    changed: int
    inode: int

    @property
    def content(self) -> tuple[int, int, int]:
        """What stays where a file is only moved, linked or given to somebody else."""
        return self.size, self.modified, self.inode


def _state(file: BinaryIO) -> State:
    entry = os.fstat(file.fileno())
    return State(entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns, entry.st_ino)


class _Known(NamedTuple):
    """A file's state, its header, which nobody may change, and where its first tensor starts."""

    state: State
    header: Mapping[str, Any]
    start: int


def _known(path: Path, file: BinaryIO) -> _Known:
    state = _state(file)
    if time.time_ns() - max(state.modified, state.changed) < _YOUNG:
        return _Known(state, _header(path, file), file.tell())
    known = _kept(path, state)
    return known if known.state == state else _Known(state, _header(path, file), file.tell())


@lru_cache(maxsize=KEPT_HEADERS)
def _kept(path: Path, _state_then: State) -> _Known:
    with _opened(path) as file:
        return _Known(_state(file), _header(path, file), file.tell())


def _header(path: Path, file: BinaryIO) -> dict[str, Any]:
    """The header of an open file, which is left at its first tensor."""
    size = file.seek(0, os.SEEK_END) - PREFIX.size
    file.seek(0)
    prefix = file.read(PREFIX.size)
    length = PREFIX.unpack(prefix)[0] if len(prefix) == PREFIX.size else 0
    if MOST_BYTES < length <= size:
        raise FileError(f"{path}: expected a header of at most {MOST_BYTES} bytes, got {length}. {_AGAIN}")
    header = _parse(path, file.read(length) if 0 < length <= size else b"")
    spans = sorted(entry["data_offsets"] for entry in _entries(header))
    end = spans[-1][1] if spans else 0
    if any(before[1] != after[0] for before, after in pairwise([[0, 0], *spans])):
        raise FileError(f"{path}: {DAMAGED}")
    if length + end != size:
        raise FileError(
            f"{path}: expected {length + end + PREFIX.size} bytes, got {size + PREFIX.size}. "
            "The file is truncated or damaged: download or copy it again."
        )
    return header


def _runs(entries: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Tensors that lie together: offset of the first -> its neighbours by name."""
    runs: list[tuple[int, dict[str, Any]]] = []
    at = -1
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        if start != at:
            runs.append((start, {}))
        runs[-1][1][name] = entry
        at = end
    return runs


def _tensor(data: bytearray, entry: Mapping[str, Any], before: int = 0) -> Tensor:
    """before: offset of the first byte of `data`."""
    start, end = (at - before for at in entry["data_offsets"])
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(f"{DAMAGED} (Numbers of the kind {entry['dtype']} are not known.)")
    if start == end:
        return torch.empty(entry["shape"], dtype=dtype)
    if start % dtype.itemsize:  # Some files do not align their tensors.
        flat = torch.frombuffer(data, dtype=torch.uint8, count=end - start, offset=start).clone().view(dtype)
    else:
        flat = torch.frombuffer(data, dtype=dtype, count=(end - start) // dtype.itemsize, offset=start)
    return flat.reshape(entry["shape"])


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    count = text.count(b'"data_offsets"')
    if count > MOST_TENSORS:
        raise FileError(f"{path}: expected at most {MOST_TENSORS} tensors, got {count}. It is not a LoRA.")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_once_each)
    except _TwiceError as error:
        raise FileError(f"{path}: expected every name once in the header, got {error} twice. {_AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: {DAMAGED}") from error
    if has_half_letters(text.decode()):
        raise FileError(f"{path}: {DAMAGED}")
    if isinstance(header, dict) and header.get(METADATA, {}) is None:
        del header[METADATA]  # Some writers put null where they have nothing to say.
    if not isinstance(header, dict) or not _is_metadata(header.get(METADATA, {})):
        raise FileError(f"{path}: {DAMAGED}")
    for name, entry in header.items():
        if name != METADATA and not _is_entry(entry):
            raise FileError(f"{path}: {name}: {DAMAGED}")
    return header


class _TwiceError(Exception):
    """A name stands twice in a JSON object, where readers disagree which one counts."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _TwiceError(next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1))
    return found


def _entries(header: Mapping[str, Any]) -> list[Any]:
    return [entry for name, entry in header.items() if name != METADATA]


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2 and len(shape) <= 8):
        return False
    size, dtype = offsets[1] - offsets[0], _DTYPES.get(entry["dtype"])
    return bool(size >= 0 if dtype is None else size == math.prod(shape) * dtype.itemsize)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def _is_metadata(entries: object) -> bool:
    return isinstance(entries, dict) and all(isinstance(value, str) for value in entries.values())
