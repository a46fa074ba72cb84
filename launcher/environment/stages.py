"""Stages of an environment: each leaves a stamp, and a stage whose stamp is missing or stale is redone."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..terminal import Activity, activity


def content_key(*parts: str) -> str:
    """A short digest of everything a stage depends on."""
    return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()[:16]


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` so that a reader sees the old file or the new one, never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_stamp(path: Path) -> str | None:
    """The key that a stamp file holds, or None if it is missing or unreadable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    key = content.get("key") if isinstance(content, dict) else None
    return key if isinstance(key, str) else None


def _always_intact() -> bool:
    return True


@dataclass(frozen=True)
class Stage:
    """One step of a set-up.

    `stamp` lies inside what the stage makes, so that it vanishes together with it. `key` is asked late:
    it may depend on what an earlier stage made. `intact` is a cheap look at the result itself.
    """

    title: str
    stamp: Path
    key: Callable[[], str]
    make: Callable[[Activity], None]
    intact: Callable[[], bool] = _always_intact

    def is_done(self) -> bool:
        return read_stamp(self.stamp) == self.key() and self.intact()

    def redo(self, show: Activity) -> None:
        """Makes the stage. The stamp goes first and comes last: an interrupted stage has none."""
        self.stamp.unlink(missing_ok=True)
        self.make(show)
        write_atomically(self.stamp, json.dumps({"key": self.key(), "stage": self.title}) + "\n")


def complete(stages: Sequence[Stage]) -> list[str]:
    """Brings every stage up to date in order and returns the titles of those that were redone."""
    redone = []
    for number, stage in enumerate(stages, start=1):
        if stage.is_done():
            continue
        with activity(f"[{number}/{len(stages)}] {stage.title}") as show:
            stage.redo(show)
        redone.append(stage.title)
    return redone
