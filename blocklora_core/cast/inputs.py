"""What a concept's file was made from, as a hash: it is trained again when that changes, and only then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..training import TrainConfig
from ..training.data.folder import listing
from ..training.state import deciding
from .journal import FINISHED, Entry
from .member import Member, RunSettings

_BLOCK, _BLOCKS = 2**12, 64


def stamp_of(member: Member, base: str, slot: int | None) -> str:
    """Changes when a picture, caption or mask is written; none is read. base: `base_mark`."""
    return _hash(member, base, slot, _state)


def inputs_of(member: Member, base: str, slot: int | None) -> str:
    """Changes when what is in pictures, captions or masks, a setting that decides what is learnt, or the base does."""
    return _hash(member, base, slot, _content)


def is_current(entry: Entry | None, member: Member, base: str, slot: int | None) -> bool:
    """Whether `entry` tells of a finished training of these very inputs; pictures are read only where they were
    written since."""
    if entry is None or entry.event != FINISHED or entry.slot != slot:
        return False
    return entry.stamp == stamp_of(member, base, slot) or entry.inputs == inputs_of(member, base, slot)


def base_mark(path: Path) -> str:
    """What tells one checkpoint from another: its size and blocks from all over it, as trainings sample weights."""
    size = path.stat().st_size
    state = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for at in range(_BLOCKS):
            file.seek(size * at // _BLOCKS)
            state.update(file.read(_BLOCK))
    return state.hexdigest()


def _hash(member: Member, base: str, slot: int | None, told: Callable[[Path], str]) -> str:
    said = [member.concept.name, member.concept.class_word, member.words, base, slot, _run(member.run)]
    state = hashlib.sha256(f"[{_told(said)}, {_config(member.config, slot)}]".encode())
    for name, path in _files(member.folder):
        state.update(json.dumps([name, told(path)]).encode())
    return state.hexdigest()


# Most concepts of a cast have the same settings.
@lru_cache(maxsize=2**10)
def _config(config: TrainConfig, slot: int | None) -> str:
    return _told(deciding(config.changed(slot=slot)))


@lru_cache(maxsize=2**10)
def _run(run: RunSettings) -> dict[str, Any]:
    return {name: value for name, value in asdict(run).items() if name != "checkpointing"}


def _told(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for picture in listing(folder).pictures:
        for path in (picture.path, picture.caption, picture.mask):
            if path is not None and path.is_file():
                yield path.relative_to(folder).as_posix(), path


def _state(path: Path) -> str:
    entry = path.stat()
    return f"{entry.st_size} {entry.st_mtime_ns}"


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_there(entry: Entry, folder: Path) -> bool:
    """Whether the file that `entry` tells of lies in `folder`, as long as it was written."""
    try:
        return bool(entry.file) and (folder / entry.file).stat().st_size == entry.bytes
    except OSError:
        return False
