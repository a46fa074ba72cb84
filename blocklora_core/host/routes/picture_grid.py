"""A folder of training pictures as a page shows it: names, sizes, captions, and what to mind."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from ...files.untrusted.text import legible
from ...training.data.advice import advice
from ...training.data.folder import CAPTIONS, Picture, listing
from ...training.data.photos import photo_size
from ..train.folders import caption_text, picture_folder, picture_folders

MOST = 300
"""Pictures that a page shows."""


def picture_grid(name: str) -> dict[str, Any]:
    """The pictures of the folder `name` below the input folder. ValueError when there is no such folder.

    others: those beyond MOST. Without their names a page would give them to other pictures. An empty name tells the
    folders that there are.
    """
    if not name:
        return {"folders": picture_folders()}
    folder = picture_folder(name)
    found = listing(folder)
    shown = [_entry(folder, picture) for picture in found.pictures[:MOST]]
    others = [_names(folder, picture) | {"captioned": bool(_caption(picture)[0])} for picture in found.pictures[MOST:]]
    sizes = {entry["name"]: (entry["width"], entry["height"]) for entry in shown if not entry["problem"]}
    return {
        "pictures": shown,
        "others": others,
        "count": len(found.pictures),
        "skipped": [legible(skipped) for skipped in found.skipped[:MOST]],
        "advice": advice(sizes, len(found.pictures)),
    }


def _entry(folder: Path, picture: Picture) -> dict[str, Any]:
    """problem: why the picture or its caption cannot be read; training would stop there."""
    width, height, problem = _size(picture.path)
    caption, unread = _caption(picture)
    return _names(folder, picture) | {
        "width": width,
        "height": height,
        "caption": caption,
        "mask": picture.mask.name if picture.mask.is_file() else "",
        "repeats": picture.repeats,
        "words": legible(picture.words),
        "changed": _changed(picture.path),
        "problem": problem or unread,
    }


def _names(folder: Path, picture: Picture) -> dict[str, Any]:
    file = picture.caption or picture.path.with_suffix(CAPTIONS[0])
    return {"name": picture.path.relative_to(folder).as_posix(), "caption_file": file.name}


def _caption(picture: Picture) -> tuple[str, str]:
    """The caption, and why it cannot be read."""
    try:
        return caption_text(picture.caption) if picture.caption else "", ""
    except (OSError, ValueError) as error:
        return "", legible(str(error))


def _size(path: Path) -> tuple[int, int, str]:
    try:
        state = path.stat()
        return (*_read_size(path, state.st_size, state.st_mtime_ns), "")
    except (OSError, ValueError) as error:
        return 0, 0, legible(str(error))


@lru_cache(maxsize=2**12)
def _read_size(path: Path, _size: int, _changed: int) -> tuple[int, int]:
    return photo_size(path)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns // 1000
    except OSError:
        return 0
