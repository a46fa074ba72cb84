"""A safetensors file opened: what the library leaves open is checked here, everything else by the library.

The library checks types, sizes and places of all tensors. It does not know that a LoRA has no million tensors, takes
the last of two of one name, and maps files into memory, where one that is truncated meanwhile ends the process.
"""

from __future__ import annotations

import io
import json
import os
import stat
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from .text import has_unseen, legible

METADATA = "__metadata__"
PREFIX = struct.Struct("<Q")
MOST_BYTES = 16 * 2**20
"""Of a header: those of the largest LoRAs have one or two million."""
MOST_TENSORS = 2**16
MOST_NAME = 1000
"""Letters of a tensor's name."""
MOST_MESSAGE = 1000
"""Letters of an error that tells what stands in a file."""
_AGAIN = "Download it again or convert it."
DAMAGED = f"expected a safetensors file, got something else or a damaged file. {_AGAIN}"


class FileError(ValueError):
    """A file cannot be read or written; says what was expected, what came and what to do."""

    def __init__(self, message: str):
        super().__init__(legible(message, MOST_MESSAGE))


@dataclass(frozen=True)
class Opened:
    """A safetensors file that is open. names: of its tensors. entries: its metadata."""

    path: Path
    file: BinaryIO
    names: tuple[str, ...]
    entries: dict[str, str]
    state: os.stat_result

    def tensors(self) -> dict[str, Tensor]:
        """All its tensors, copied: what becomes of the file afterwards does not change them. FileError for one that is
        damaged, or changes while it is read."""
        self.file.seek(0)
        data = self.file.read()
        after = os.fstat(self.file.fileno())
        if (self.state.st_size, self.state.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise FileError(f"{self.path}: expected a file at rest, got one that changed while it was read. Try again.")
        return _tensors(self.path, data)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Opened]:
    """A safetensors file, its header read. FileError when it is missing, is none or is not complete."""
    path = Path(path)
    with _readable(path) as file:
        state = os.fstat(file.fileno())
        header = _header(path, file)
        entries = header.pop(METADATA, {})
        yield Opened(path, file, tuple(header), entries, state)


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The safetensors header, without reading any tensor: name -> {dtype, shape, data_offsets}, as it stands there, and
    `__metadata__`. FileError as in `opened`."""
    with _readable(Path(path)) as file:
        return _header(Path(path), file)


def tensors_in(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file's bytes; `path` is for messages. FileError as in `opened`."""
    header = _header(path, io.BytesIO(data))
    return _tensors(path, data), header.get(METADATA, {})


def read_whole(path: Path, most: int | None = None) -> bytes:
    """All bytes of an ordinary file, at most so many. FileError when it cannot be read or has more."""
    with _readable(path) as file:
        data = file.read() if most is None else file.read(most + 1)
    if most is not None and len(data) > most:
        raise FileError(f"{path}: expected at most {most} bytes, got more. Shorten it.")
    return data


def unreadable(path: Path, error: OSError) -> FileError:
    """The error for a file that the system does not open."""
    if isinstance(error, FileNotFoundError):
        return FileError(f"{path}: expected a file, got none. Check the name and the folder.")
    return FileError(f"{path}: expected a readable file, got: {error.strerror}.")


def check_ordinary(path: Path) -> None:
    """FileError for anything but an ordinary file: opening a pipe would wait for its other end. OSError for none."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileError(f"{path}: expected a readable file, got a folder, a pipe or a device. Choose another.")


def check_name(name: str) -> None:
    """ValueError for what no tensor of a LoRA is called."""
    if len(name) > MOST_NAME or has_unseen(name):
        raise ValueError(f"expected names of at most {MOST_NAME} letters that show, got {name[:80]!r}. {_AGAIN}")


@contextmanager
def _readable(path: Path) -> Iterator[BinaryIO]:
    try:
        check_ordinary(path)
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error


def _tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:  # KeyError: numbers of a kind that torch does not know
        raise FileError(f"{path}: {DAMAGED} ({error})") from error


def _header(path: Path, file: BinaryIO) -> dict[str, Any]:
    size = file.seek(0, os.SEEK_END) - PREFIX.size
    file.seek(0)
    prefix = file.read(PREFIX.size)
    length = PREFIX.unpack(prefix)[0] if len(prefix) == PREFIX.size else 0
    if MOST_BYTES < length <= size:
        raise FileError(f"{path}: expected a header of at most {MOST_BYTES} bytes, got {length}. {_AGAIN}")
    header = _parse(path, file.read(length) if 0 < length <= size else b"")
    try:
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != METADATA), default=0)
        whole = length + end == size
    except (TypeError, LookupError) as error:
        raise FileError(f"{path}: {DAMAGED}") from error
    if not whole:
        raise FileError(
            f"{path}: expected {length + end + PREFIX.size} bytes, got {size + PREFIX.size}. "
            "The file is truncated or damaged: download or copy it again."
        )
    return header


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
    if isinstance(header, dict) and header.get(METADATA, {}) is None:
        del header[METADATA]  # Some writers put null where they have nothing to say.
    if not isinstance(header, dict) or not _is_metadata(header.get(METADATA, {})):
        raise FileError(f"{path}: {DAMAGED}")
    try:
        for name in header:
            check_name(name)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error
    return header


class _TwiceError(Exception):
    """A name stands twice in a JSON object, where readers disagree which one counts."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _TwiceError(next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1))
    return found


def _is_metadata(entries: object) -> bool:
    return isinstance(entries, dict) and all(isinstance(value, str) for value in entries.values())
