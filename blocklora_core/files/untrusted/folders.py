"""Folders walked once each, whatever links point back into them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PathLike = str | os.PathLike[str]
Folders = PathLike | Iterable[PathLike]

MOST_DEPTH = 64
"""Folders in each other; what lies deeper is not looked at."""


def walk(folders: Folders, enters: Callable[[str], bool] = lambda _name: True) -> Iterator[tuple[Path, list[str]]]:
    """Every folder at and below `folders` with the names of its files. Links are followed, as ComfyUI does.

    enters: whether a folder of that name is looked into.
    """
    seen: set[str] = set()
    for folder in [folders] if isinstance(folders, str | os.PathLike) else folders:
        deepest = len(Path(folder).parts) + MOST_DEPTH
        for parent, inner, names in os.walk(folder, followlinks=True):
            path, real = Path(parent), os.path.realpath(parent)
            if real in seen:
                inner.clear()
                continue
            seen.add(real)
            inner[:] = sorted(filter(enters, inner)) if len(path.parts) < deepest else []
            yield path, sorted(names)


def files_below(folders: Folders, ending: str) -> Iterator[Path]:
    """Every file at or below `folders` whose name ends in `ending`."""
    for parent, names in walk(folders):
        yield from (parent / name for name in names if name.endswith(ending))
