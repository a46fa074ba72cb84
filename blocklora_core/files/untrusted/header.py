"""A safetensors file opened: its header checked number by number before any tensor is made."""

from __future__ import annotations

import io
import json
import math
import os
import stat
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

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
        return _header(Path(path), file)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of a safetensors file, copied: what becomes of the file afterwards does not change them.

    FileError as in `read_header`, and when the file changes while it is read.
    """
    path = Path(path)
    with _opened(path) as file:
        before = os.fstat(file.fileno())
        header = _header(path, file)
        data = bytearray(file.read())
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise FileError(f"{path}: expected a file at rest, got one that changed while it was read. Try again.")
    return {name: _tensor(data, entry) for name, entry in header.items() if name != METADATA}


def tensors_in(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file's bytes; `path` is for messages. FileError as in `read_header`."""
    file = io.BytesIO(data)
    header = _header(path, file)
    body = bytearray(file.read())
    return {name: _tensor(body, entry) for name, entry in header.items() if name != METADATA}, header.get(METADATA, {})


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


def _tensor(data: bytearray, entry: Mapping[str, Any]) -> Tensor:
    start, end = entry["data_offsets"]
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(f"{DAMAGED} (Numbers of the kind {entry['dtype']} are not known.)")
    if start == end:
        return torch.empty(entry["shape"], dtype=dtype)
    flat = torch.frombuffer(data, dtype=torch.uint8, count=end - start, offset=start)
    # Some files do not align their tensors.
    flat = flat.clone() if start % dtype.itemsize else flat
    return flat.view(dtype).reshape(entry["shape"])


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
