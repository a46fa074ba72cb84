"""Folders walked once each, whatever links point back into them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

PathLike = str | os.PathLike[str]
Folders = PathLike | Iterable[PathLike]


def walk(folders: Folders) -> Iterator[tuple[Path, list[str]]]:
    """Every folder at and below `folders` with the names of its files. Links are followed, as ComfyUI does."""
    seen: set[str] = set()
    for folder in [folders] if isinstance(folders, str | os.PathLike) else folders:
        for parent, inner, names in os.walk(folder, followlinks=True):
            real = os.path.realpath(parent)
            if real in seen:
                inner.clear()
                continue
            seen.add(real)
            inner.sort()
            yield Path(parent), sorted(names)


def files_below(folders: Folders, ending: str) -> Iterator[Path]:
    """Every file at or below `folders` whose name ends in `ending`."""
    for parent, names in walk(folders):
        yield from (parent / name for name in names if name.endswith(ending))
