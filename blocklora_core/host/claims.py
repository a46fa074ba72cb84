"""Slots given to trainings whose concepts are not saved yet: a small file each, beside the LoRAs.

All servers on one models folder see it, and only one of them can make it. It goes when the concept is saved or the
training fails; one that its owner left behind counts no more after a day.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..concept.concept import Concept
from ..concept.rows import Scheme
from ..files.record import known_base
from ..files.untrusted.header import read_whole
from ..files.untrusted.json_text import parse_object
from .disk import loras_folder, place

ENDING = ".claim"
LASTING = 24 * 3600
"""Seconds that a claim counts after it was last renewed."""

_MOST_BYTES = 2**14


@dataclass(frozen=True)
class Claim:
    """One slot, and whose it is."""

    base: str
    scheme: Scheme
    slot: int
    concept: str

    @property
    def path(self) -> Path:
        """Its file."""
        base = "".join(c if c.isalnum() or c in "-." else "_" for c in self.base)[:80] or "any"
        name = f"{base}_{self.scheme.slots}_{self.slot:03d}{ENDING}"
        return place(loras_folder(), f"blocklora/slots/{name}")

    def take(self) -> bool:
        """Make the file, or renew it where it is this concept's. False when the slot is another's."""
        path, data = self.path, json.dumps({**self._fields(), "time": time.time()}).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            try:
                with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), "wb") as file:
                    file.write(data)
                return True
            except FileExistsError:
                held = _read(path)
                if held is not None and held.concept == self.concept:
                    self.renew()
                    return True
                if held is not None or not _is_stale(path):
                    return False
                path.unlink(missing_ok=True)
        return False

    def renew(self) -> None:
        """It counts for another day."""
        with suppress(OSError):
            os.utime(self.path)

    def give_back(self) -> None:
        """The slot is free, unless the file is another concept's by now."""
        held = _read(self.path)
        if held is not None and held.concept == self.concept:
            with suppress(OSError):
                self.path.unlink()

    def _fields(self) -> dict[str, object]:
        return {"base": self.base, "scheme": self.scheme.to_dict(), "slot": self.slot, "concept": self.concept}


def claims() -> Iterator[Claim]:
    """All that count, of whichever server."""
    folder = loras_folder() / "blocklora" / "slots"
    for path in sorted(folder.glob(f"*{ENDING}")):
        claim = _read(path)
        if claim is not None:
            yield claim


def _read(path: Path) -> Claim | None:
    try:
        if _is_stale(path):
            return None
        data = parse_object(read_whole(path, _MOST_BYTES).decode())
        concept = Concept(data["concept"]).name
        claim = Claim(known_base(data["base"]), Scheme.from_dict(data["scheme"]), data["slot"], concept)
        claim.scheme.check_slot(claim.slot)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return claim


def _is_stale(path: Path) -> bool:
    # One just made may still be empty: its writer is between two lines.
    try:
        state = path.stat()
    except OSError:
        return True
    return abs(time.time() - state.st_mtime) > LASTING or (not state.st_size and time.time() - state.st_mtime > 10)
