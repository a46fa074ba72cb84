"""The files of the loras folders and what they say about themselves, as a page shows them: text and numbers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import folder_paths

from ...files.catalogue.index import known
from ...files.catalogue.summary import Summary
from ...files.untrusted.text import legible

SECONDS = 0.4
"""After which an answer goes out with what was read until then; what was read is kept, so the next one has more."""

# Beside a.safetensors: a.png, a.preview.png and so on. The host's own route of previews shows them.
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})


def catalogue(seconds: float = SECONDS) -> dict[str, Any]:
    """files: an entry each, in the order of their names; those that `seconds` did not suffice for have only a name.
    unread: how many these are."""
    ends = time.monotonic() + seconds
    files = [_entry(name, time.monotonic() < ends) for name in folder_paths.get_filename_list("loras")]
    return {"files": files, "unread": sum("folder" not in entry for entry in files)}


def located(name: str) -> tuple[int, Path] | None:
    """The number of the loras folder that holds `name`, and the file there; None when it is gone."""
    for number, folder in enumerate(folder_paths.get_folder_paths("loras")):
        path = Path(folder, name)
        if path.is_file():
            return number, path
    return None


def problem_in(path: Path, name: str, problem: str) -> str:
    """`problem` as a page shows it: with the file's name in place of where it lies."""
    return legible(problem.removeprefix(f"{path}: ").replace(str(path), name))


def _entry(name: str, read: bool) -> dict[str, Any]:
    shown = name.replace(os.sep, "/")
    found = located(name) if read else None
    if found is None:
        return {"name": shown, "problem": "The file is gone.", "folder": -1} if read else {"name": shown}
    number, path = found
    entry = {"name": shown, "folder": number, "picture": _has_picture(path), **_state(path)}
    summary = known(path)
    if isinstance(summary, str):
        return {**entry, "problem": problem_in(path, shown, summary)}
    return {**entry, **_fields(summary), "problem": problem_in(path, shown, summary.problem)}


def _fields(summary: Summary) -> dict[str, Any]:
    block = summary.block
    return {
        "concept": legible(summary.concept),
        "base": legible(summary.base),
        "words": legible(summary.words),
        "images": summary.images,
        "apart": summary.apart,
        "slot": None if block is None else block.slot,
        "slots": None if block is None else block.scheme.slots,
    }


def _state(path: Path) -> dict[str, float]:
    try:
        state = path.stat()
    except OSError:
        return {}
    return {"changed": state.st_mtime, "size": state.st_size}


def _has_picture(path: Path) -> bool:
    folder = path.parent
    try:
        return path.stem in _pictured(folder, folder.stat().st_mtime_ns)
    except OSError:  # a folder that is not to be listed stops no other
        return False


@lru_cache(maxsize=2**10)
def _pictured(folder: Path, _changed: int) -> frozenset[str]:
    """Stems of the files in `folder` that a picture lies beside."""
    return frozenset(_stems([entry.name for entry in os.scandir(folder)]))


def _stems(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        path = Path(name)
        if path.suffix.lower() in _PICTURES:
            yield path.stem
            yield path.stem.removesuffix(".preview")
