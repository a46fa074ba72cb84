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
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from .json_text import check_letters
from .text import has_unseen, legible

METADATA = "__metadata__"
PREFIX = struct.Struct("<Q")
MOST_BYTES = 16 * 2**20
"""Of a header: those of the largest LoRAs have one or two million."""
MOST_TENSORS = 2**16
MOST_NAME = 1000
"""Letters of a tensor's name."""
KEPT_HEADERS = 128
"""Of files at rest: a merge of sixty files and a look at their folder."""
_YOUNG = 2 * 10**9
"""Nanoseconds in which a file may change again without its times telling."""
MOST_MESSAGE = 1000
"""Letters of an error that tells what stands in a file."""
_AGAIN = "Download it again or convert it."
DAMAGED = f"expected a safetensors file, got something else or a damaged file. {_AGAIN}"


class FileError(ValueError):
    """A file cannot be read or written; says what was expected, what came and what to do."""

    def __init__(self, message: str):
        super().__init__(legible(message, MOST_MESSAGE))


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


class Header(NamedTuple):
    """A file's header as it stands there, which nobody may change. start: of its first tensor."""

    state: State
    tensors: Mapping[str, Any]
    entries: Mapping[str, str]
    start: int


@dataclass(frozen=True)
class Stored:
    """A tensor of bytes at the end of a file, read when somebody asks. start: in the file."""

    path: Path
    name: str
    state: State
    start: int
    size: int

    def read(self) -> Tensor:
        """uint8 (size,). FileError unless the file is the one that was looked at."""
        with _readable(self.path) as file:
            file.seek(self.start)
            data = bytearray(file.read(self.size))
            if _state(file).content != self.state.content:
                raise FileError(f"{self.path}: expected the file as it was, got one that has changed. Load it again.")
        return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


@dataclass(frozen=True)
class Opened:
    """A safetensors file that is open. names: of its tensors. entries: its metadata."""

    path: Path
    file: BinaryIO
    header: Header

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.header.tensors)

    @property
    def entries(self) -> Mapping[str, str]:
        return self.header.entries

    def stored(self, name: str) -> Stored | None:
        """The tensor of that name where it is one row of bytes behind all others, None where it is not."""
        *others, (last, entry) = sorted(self.header.tensors.items(), key=_end) or [("", {})]
        first = _end(others[-1]) if others else 0
        if last != name or entry.get("dtype") != "U8" or entry["data_offsets"][0] != first:
            return None
        size = entry["data_offsets"][1] - first
        start = self.header.start + first
        return Stored(self.path, name, self.header.state, start, size) if entry["shape"] == [size] else None

    def tensors(self, but: Stored | None = None) -> dict[str, Tensor]:
        """Its tensors, all or `but` one, copied: what becomes of the file afterwards does not change them. FileError
        for one that is damaged, or changes while it is read."""
        self.file.seek(self.header.start if but else 0)
        rest = {name: entry for name, entry in self.header.tensors.items() if but and name != but.name}
        data = serialised(rest, self.file.read(but.start - self.header.start)) if but else self.file.read()
        if _state(self.file).content != self.header.state.content:
            raise FileError(f"{self.path}: expected a file at rest, got one that changed while it was read. Try again.")
        return _tensors(self.path, data)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Opened]:
    """A safetensors file, its header read. FileError when it is missing, is none or is not complete."""
    path = Path(path)
    with _readable(path) as file:
        yield Opened(path, file, _known(path, file))


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The safetensors header, without reading any tensor: name -> {dtype, shape, data_offsets}, as it stands there, and
    `__metadata__`. FileError as in `opened`."""
    with opened(path) as file:
        return {**file.header.tensors, **({METADATA: dict(file.entries)} if file.entries else {})}


def serialised(header: Mapping[str, Any], body: bytes) -> bytes:
    """A safetensors file's bytes."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return PREFIX.pack(len(text)) + text + body


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


def _state(file: BinaryIO) -> State:
    entry = os.fstat(file.fileno())
    return State(entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns, entry.st_ino)


def _end(item: tuple[str, Any]) -> int:
    return int(item[1]["data_offsets"][1])


def _known(path: Path, file: BinaryIO) -> Header:
    state = _state(file)
    if time.time_ns() - max(state.modified, state.changed) < _YOUNG:
        return _read(path, file)
    kept = _kept(path, state)
    return kept if kept.state == state else _read(path, file)


@lru_cache(maxsize=KEPT_HEADERS)
def _kept(path: Path, _state_then: State) -> Header:
    with _readable(path) as file:
        return _read(path, file)


def _read(path: Path, file: BinaryIO) -> Header:
    state, header = _state(file), _header(path, file)
    entries = header.pop(METADATA, {})
    return Header(state, header, entries, file.tell())


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
        told = text.decode()
        header = json.loads(told, object_pairs_hook=_once_each)
        # The library does so itself, but it does not see the metadata of a file whose Grams stay there.
        check_letters(told, header)
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
