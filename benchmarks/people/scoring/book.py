"""Scores that `bench people` gave, kept by what the pictures come from. Files and pictures may go, a stage still goes
on. After `import_comfyui`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks.identity_study.work import Cell, Folders
from blocklora_core.files.io import write_atomic
from demo.people.reader import alignment, stored

JUDGES = (alignment.STORED, *(stored.path_of(blind) for blind in (False, True)))
"""Weights of all that scores."""
DIGITS = 4

Seen = Mapping[str, Mapping[str, Sequence[float]]]
"""Concept -> metric -> a score for each picture."""


class MixedError(ValueError):
    """What was computed in different ways does not compare."""


@cache
def judges() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in JUDGES)).hexdigest()[:16]


@dataclass
class ScoreBook:
    """One JSON file, a line for each cell, all computed in one precision."""

    path: Path
    precision: str
    known: dict[str, Seen] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, precision: str) -> ScoreBook:
        """Scores by other judges than today's are as good as none. MixedError for those of another precision."""
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if kept.get("judges") != judges():
            return cls(path, precision)
        if kept["precision"] != precision:
            raise MixedError(
                f"{path.name}: expected scores of pictures computed in {precision}, got {kept['precision']}. All of a "
                f"study computes alike: pass --precision {kept['precision']}, or remove the file to begin anew."
            )
        return cls(path, precision, dict(kept["cells"]))

    def of(self, cell: Cell, folders: Folders) -> Seen | None:
        return self.known.get(_name(cell, folders))

    def put(self, cell: Cell, folders: Folders, seen: Seen) -> Seen:
        """What is kept, rounded: figures are the same whether a cell is scored now or was before."""
        kept = {
            name: {metric: [round(one, DIGITS) for one in scores] for metric, scores in found.items()}
            for name, found in seen.items()
        }
        self.known[_name(cell, folders)] = kept
        return kept

    def write(self) -> None:
        lines = [f"{json.dumps(name)}: {json.dumps(self.known[name])}" for name in sorted(self.known)]
        head = f'{{"judges": "{judges()}", "precision": "{self.precision}", "cells": {{'
        text = f"{head}\n" + ",\n".join(lines) + "\n}}\n"
        write_atomic(self.path, text.encode())


def _name(cell: Cell, folders: Folders) -> str:
    return cell.path(folders).stem
