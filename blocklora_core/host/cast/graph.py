"""A cast trained in a graph: which folders are one, and a line a concept on the node while it goes on."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ...cast.inputs import stamp_of
from ...cast.journal import FAILED, Entry
from ...cast.member import Cast
from ...cast.planning import Plan
from ...cast.reading import read_cast
from ...cast.table import lines, summary
from ...cast.tasks import Progress
from ...concept.concept import Stack
from ...files.untrusted.text import legible
from ..page import announce, shortened
from ..train.folders import picture_folder, picture_folders
from .base import Loaded, make_plan
from .results import stack_of
from .train import train_cast
from .worker import InTurn

TOLD_EVERY = 0.5
"""Seconds between two words about steps."""

_failures = Counter[str]()
"""Folder -> how often some of its concepts failed: then the host is to run the node again, though nothing changed."""


@dataclass(frozen=True)
class CastResult:
    """stack: of all that are finished. warnings: of those that failed."""

    stack: Stack
    report: str
    warnings: list[str]


def cast_folders() -> list[str]:
    """Folders below the input folder that hold folders with pictures."""
    parents = {str(PurePosixPath(name).parent) for name in picture_folders()}
    return sorted(parents - {"."})


def cast_of(folder: str) -> Cast:
    """The cast in a folder below the input folder. ValueError when there is none."""
    return read_cast(picture_folder(folder))


def cast_hash(folder: str) -> str:
    """Changes when a picture, a caption or a setting of the cast does, or when some of it failed."""
    cast = cast_of(folder)
    told = [(member.slot, stamp_of(member, "", 0 if member.config.adapter.scheme else None)) for member in cast.members]
    return hashlib.sha256(f"{_failures[folder]} {cast.together} {told}".encode()).hexdigest()


def train_in_graph(folder: str, base: Loaded, node_id: str | None, workflow: str) -> CastResult:
    """Train whoever of the cast is not finished. InterruptProcessingException when the user cancels: what is finished
    is kept, and the same run goes on."""
    cast = cast_of(folder)
    page = _Page(make_plan(cast, base.facts), node_id or "", workflow)
    page.tell()
    done = train_cast(cast, base.facts, InTurn(base), page.ended, page.on_progress, node_id)
    if done.failed:
        _failures[folder] += 1
    warnings = [f"{legible(name)} failed: {legible(why, 2000)}" for name, why in done.failed.items()]
    report = "\n".join([*lines(done.plan, {}), summary(done.plan), *warnings])
    if len(done.failed) == len(cast.members):
        raise ValueError(f"Cast {cast.name}: expected a concept that can be trained, got none.\n" + "\n".join(warnings))
    return CastResult(stack_of(cast, base.facts), report, warnings)


@dataclass
class _Page:
    """The node's lines, sent to every page as they change."""

    plan: Plan
    node: str
    workflow: str
    under_way: dict[str, str] = field(default_factory=dict)
    _told: float = float("-inf")

    def ended(self, entry: Entry) -> None:
        self.under_way[entry.concept] = f"failed: {entry.error}" if entry.event == FAILED else entry.event
        self.tell()

    def on_progress(self, concept: str, progress: Progress) -> None:
        self.under_way[concept] = f"step {progress.done} of {progress.of}"
        if time.monotonic() - self._told > TOLD_EVERY:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        text = shortened("\n".join(lines(self.plan, self.under_way)), 20000)
        announce("blocklora.report", {"node": self.node, "workflow": self.workflow, "text": text})
