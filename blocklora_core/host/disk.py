"""Where concepts are saved and found. Every path that is written goes through `place`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path

import folder_paths
import torch

from ..concept.concept import BlockLoRA, Concept, Stack
from ..files.io import encode, read_header
from ..files.record import read_record
from ..files.untrusted.folders import MOST_DEPTH
from ..files.untrusted.header import FileError
from ..files.untrusted.text import has_unseen
from ..files.writing import sweep, write_atomic, write_new

MOST_BYTES = 200
"""Of a file's name before its ending: systems take 255 with it, and some add their own."""

# What Windows opens as a device, whatever comes after the dot.
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"}
_DEVICES |= {f"{port}{number}" for port in ("com", "lpt") for number in "123456789\u00b9\u00b2\u00b3"}

Owned = Callable[[Mapping[str, str]], bool]
"""Whether a file is one that may be replaced, by its metadata."""


def file_word(text: str) -> str:
    """`text` with nothing in it that a file system, or a path, takes for more than a letter."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text).strip(".") or "_"


def safe_name(concept: Concept) -> str:
    """The concept's name as a file name. ValueError when no file system takes one so long."""
    name = file_word(concept.bare)
    if len(name.encode()) > MOST_BYTES:
        raise ValueError(
            f"File name: expected at most {MOST_BYTES} bytes, got {len(name.encode())}. Rename the concept."
        )
    return f"_{name}" if name.partition(".")[0].lower() in _DEVICES else name


def loras_folder() -> Path:
    """The folder that new LoRA files go to."""
    return Path(folder_paths.get_folder_paths("loras")[0])


def embeddings_folder() -> Path:
    """The folder that new embeddings go to."""
    return Path(folder_paths.get_folder_paths("embeddings")[0])


def runs_folder() -> Path:
    """Where states and results wait; not the loras folder, as nobody is to choose them in a list."""
    return Path(folder_paths.get_user_directory()) / "blocklora" / "runs"


def interrupted_folder() -> Path:
    """Where LoRAs of trainings that were broken off wait until these are finished; not the loras folder either."""
    return Path(folder_paths.get_user_directory()) / "blocklora" / "interrupted"


def index_file() -> Path:
    """Where the headers of LoRA files are remembered."""
    return Path(folder_paths.get_user_directory()) / "blocklora" / "headers.jsonl"


def lora_file(name: str) -> Path:
    """The file that a loras list calls `name`. ValueError when it is gone: not every host checks lists itself."""
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise ValueError(
            f"LoRA file: expected one of the loras folder, got {name!r}. Press R to refresh the list and choose again."
        )
    return Path(path)


def place(root: Path, name: str) -> Path:
    """The path of `name` below `root`, links resolved. ValueError for any place that is not inside `root`, and for
    names that some system takes for something else.
    """
    parts = name.replace("\\", "/").split("/")
    if (
        len(parts) > MOST_DEPTH
        or has_unseen(name)
        or any(part.partition(".")[0].strip().lower() in _DEVICES for part in parts)
    ):
        raise ValueError(f"File name: expected one that every system takes, got {name[:80]!r}. Choose another.")
    try:
        folder, given = root.resolve(), root.resolve() / name
        # A file that is a link itself is replaced or numbered; what it points to stays.
        path = given.parent.resolve() / given.name
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"File name: expected one that the system takes, got {name[:80]!r}: {error}.") from error
    if given.name == ".." or path == folder or not path.is_relative_to(folder):
        raise ValueError(f"File name: expected a place inside the {root.name} folder, got {name[:80]!r}.")
    return path


def target_file(prefix: str, concept: Concept) -> Path:
    """Where `concept` is saved: below the loras folder. ValueError for any other place."""
    return place(loras_folder(), f"{prefix}{safe_name(concept)}.safetensors")


def write(path: Path, data: bytes, owned: Owned | None = None, once: bool = False) -> Path:
    """Writes `data` to `path`, or, where that is taken, to the first free number after it; gives the file written.

    owned: when given, a file whose metadata it accepts is replaced instead. once: a file that holds just `data` stays.
    """
    if owned is not None and is_owned(path, owned):
        write_atomic(path, data)
        return path
    return next(name for name in _numbered(path) if (once and _holds(name, data)) or write_new(name, data))


def free_file(path: Path) -> Path:
    """`path`, numbered where that is taken at this moment."""
    return next(name for name in _numbered(path) if not name.exists())


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_stem(f"{path.stem}_{number:02d}") for number in count(2))


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def is_owned(path: Path, owned: Owned) -> bool:
    """Whether the file at `path` is there and may be replaced."""
    try:
        return owned(read_header(path).get("__metadata__", {}))
    except FileError:
        return False


def owned_by(concept: Concept, base: str) -> Owned:
    """Accepts files of this concept: its name and base. Trained again in another slot it is the same concept."""

    def owned(metadata: Mapping[str, str]) -> bool:
        try:
            record = read_record(metadata)
        except ValueError:
            return False
        return record is not None and (record.concept.name, record.base) == (concept.name, base)

    return owned


def save_stack(stack: Stack, prefix: str, overwrite: bool) -> tuple[Stack, list[Path]]:
    """Save each concept to `prefix` + its name; returns the stack with its sources, and the files written.

    overwrite: in place of an older file of the same concept, and of no other.
    """
    saved, paths = [], []
    for lora in stack:
        target = target_file(prefix, lora.concept)
        path = write_lora(target, lora, owned_by(lora.concept, lora.base) if overwrite else None)
        saved.append(dataclasses.replace(lora, source=path.name))
        paths.append(path)
    return tuple(saved), paths


def write_lora(
    path: Path, lora: BlockLoRA, owned: Owned | None = None, dtype: torch.dtype = torch.float16, once: bool = False
) -> Path:
    """Writes `lora` as `write` does. FileError when it cannot be stored."""
    try:
        data = encode(lora, dtype)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error
    return write(path, data, owned, once)


def newest_first(paths: Iterable[Path], written: Path) -> dict[Path, int]:
    """Those of `paths` that are there, by when they were written, the newest first -> bytes.

    written: the one just written, whatever its time says: the clock may have gone back.
    """
    found = {}
    for path in paths:
        with suppress(OSError):  # another server was quicker
            found[path] = path.stat()
    order = sorted(found, key=lambda path: (path == written, found[path].st_mtime_ns), reverse=True)
    return {path: found[path].st_size for path in order}


def sweep_leftovers() -> list[Path]:
    """Removes what this pack's writers left when they were killed; gives what was removed."""
    return sweep([loras_folder(), embeddings_folder(), runs_folder(), interrupted_folder()])
