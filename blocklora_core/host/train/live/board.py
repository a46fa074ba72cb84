"""The state of trainings, by run id: what a page shows of them, whenever it asks. Text and numbers, no code."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
from PIL import Image

from ....files.untrusted.header import read_whole
from ....files.untrusted.json_text import parse_json
from ....files.untrusted.text import legible
from ....files.writing import write_atomic
from ...disk import runs_folder
from ...page import announce

PREPARING, ENCODING, TRAINING, COLLECTING = "preparing", "encoding", "training", "collecting"
DONE, STOPPED, CANCELLED, FAILED = "done", "stopped", "cancelled", "failed"
RUNNING = frozenset({PREPARING, ENCODING, TRAINING, COLLECTING})
ENDED = frozenset({DONE, STOPPED, CANCELLED, FAILED})

MOST_RUNS = 12
_MOST_BYTES = 2**22
"""Of the file of them."""
MOST_POINTS = 240
"""Of the curve that a page gets."""
MOST_SAMPLES = 12
SAMPLE_SIDE = 256
ANNOUNCED_EVERY = 0.3
"""Seconds between two words about steps."""
WATCHED = 15.0
"""Seconds for which a page that asked counts as looking."""


@dataclass
class Run:
    """One training. node, workflow: where it was queued. key: of the files it goes on from, once that is known.

    kept: steps that wait on the disk after it was broken off. seconds: of the steps made now.
    """

    id: str
    node: str
    workflow: str
    concept: str
    class_word: str
    steps: int
    key: str = ""
    phase: str = PREPARING
    pictures: int = 0
    step: int = 0
    resumed: int = 0
    kept: int = 0
    seconds: float = 0.0
    message: str = ""
    losses: list[float] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stop_wanted = False
        self._asked = self._announced = float("-inf")

    @property
    def watched(self) -> bool:
        """Whether a page of ours shows it: then the node needs no picture and no text of the host's."""
        return time.monotonic() - self._asked < WATCHED

    def to(self, phase: str) -> None:
        """Another phase has begun."""
        self.phase = phase
        self._tell()

    def stepped(self, losses: list[float], seconds: float) -> None:
        """A step was made. losses: of all steps; seconds: since the first step of now."""
        self.losses, self.step, self.seconds = losses, len(losses), seconds
        if time.monotonic() - self._announced > ANNOUNCED_EVERY:
            self._tell()

    def show(self, picture: Image.Image) -> None:
        """A sample after the last step, for the host's own /view."""
        folder = Path(folder_paths.get_temp_directory()) / "blocklora"
        name = f"{self.id}_{self.step}.jpg"
        small = picture.convert("RGB")
        small.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            small.save(folder / name, quality=90)
        except OSError as error:
            logging.warning("BlockLoRA: a sample cannot be shown: %s", error)
            return
        self.samples.append({"step": self.step, "filename": name, "subfolder": "blocklora", "type": "temp"})

    def state(self) -> dict[str, Any]:
        """What a page gets."""
        made = self.step - self.resumed
        pace = self.seconds / (made - 1) if made > 1 else 0.0
        shown = {name: value for name, value in asdict(self).items() if name not in ("losses", "key", "seconds")}
        return {
            **shown,
            "running": self.phase in RUNNING,
            "stopping": self.stop_wanted,
            "curve": thinned(self.losses, MOST_POINTS),
            "samples": _some(self.samples, MOST_SAMPLES),
            "pace": pace,
            "left": pace * (self.steps - self.step),
        }

    def _tell(self) -> None:
        self._announced = time.monotonic()
        announce("blocklora.run", {"id": self.id, "node": self.node, "workflow": self.workflow, "phase": self.phase})


def thinned(losses: Sequence[float], most: int) -> list[tuple[int, float]]:
    """(step, mean loss) of at most `most` stretches of equal length, the last steps included."""
    length = -(-len(losses) // most) or 1
    parts = [losses[start : start + length] for start in range(0, len(losses), length)]
    return [(min((at + 1) * length, len(losses)), sum(part) / len(part)) for at, part in enumerate(parts)]


def _some(samples: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    return samples if len(samples) <= most else [samples[0], *samples[1 - most :]]


class Board:
    """The last runs of this server and of those before it, the newest last."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.as_it_is: set[str] = set()
        """Keys of runs that end at once the next time, with what they have learnt."""
        self.turns: dict[str, int] = {}
        """Concept -> how often it was told to go on: the host keeps what a stopped training gave."""
        self._read = False

    def begin(self, *, node: str | None, workflow: str, concept: str, class_word: str, steps: int) -> Run:
        """A new run, from now on the last one of its node."""
        self._load()
        run = Run(uuid.uuid4().hex, node or "", workflow, concept, class_word, steps)
        self.runs[run.id] = run
        for old in list(self.runs)[:-MOST_RUNS]:
            del self.runs[old]
        run.to(PREPARING)
        return run

    def find(self, node: str, workflow: str) -> Run | None:
        """The last run of a node, by its whole place: `3:14` is node 14 within node 3."""
        self._load()
        for run in reversed(list(self.runs.values())):
            if run.node == node and run.workflow == workflow:
                run._asked = time.monotonic()
                return run
        return None

    def stop(self, run: Run) -> None:
        """End it well after its next step; the graph goes on with what it has learnt."""
        if run.phase in RUNNING:
            run.stop_wanted = True
            run.to(run.phase)

    def take(self, run: Run) -> None:
        """The next run of the same inputs makes no further step."""
        if run.phase in ENDED and run.kept:
            self.as_it_is.add(run.key)
            self._turn(run)

    def is_enough(self, key: str, steps: int) -> bool:
        """Whether a run that goes on after `steps` is to make no further one; asked once."""
        wanted = key in self.as_it_is
        self.as_it_is.discard(key)
        return wanted and steps > 0

    def go_on(self, run: Run) -> None:
        """The next run of the same inputs goes on where this one ended."""
        if run.phase in ENDED:
            self.as_it_is.discard(run.key)
            self._turn(run)

    def _turn(self, run: Run) -> None:
        self.turns[run.concept] = self.turns.get(run.concept, 0) + 1

    @contextmanager
    def showing(self, run: Run) -> Iterator[Run]:
        """`run` while the block runs, and how it ended."""
        try:
            yield run
        except comfy.model_management.InterruptProcessingException:
            self._end(run, CANCELLED)
            raise
        except BaseException as error:
            self._end(run, FAILED, legible(str(error), 600))
            raise
        self._end(run, STOPPED if run.stop_wanted and run.step < run.steps else DONE)

    def _end(self, run: Run, phase: str, message: str = "") -> None:
        run.message = message
        run.to(phase)
        ended = [asdict(one) for one in self.runs.values() if one.phase in ENDED]
        # The curve is all that would grow, and the samples go with the host's temporary files.
        for one in ended:
            one["losses"], one["samples"] = one["losses"][-2000:], []
        try:
            write_atomic(_file(), json.dumps(ended).encode())
        except OSError as error:
            logging.warning("BlockLoRA: how a training ended is not kept: %s", error)

    def _load(self) -> None:
        if self._read:
            return
        self._read = True
        if not _file().exists():
            return
        try:
            kept = parse_json(read_whole(_file(), _MOST_BYTES).decode("utf-8"))
            found = [Run(**one) for one in kept[-MOST_RUNS:] if _is_run(one)]
            self.runs = {**{run.id: run for run in found}, **self.runs}
        except (ValueError, TypeError, LookupError) as error:
            logging.warning("BlockLoRA: the list of trainings cannot be read, it starts anew: %s", error)


_SOUND = vars(Run("", "", "", "", "", 0))
_NAMES = frozenset(one.name for one in fields(Run))


def _is_run(one: object) -> bool:
    """Whether a run that ended may have been written so."""
    return (
        isinstance(one, dict)
        and one.keys() == _NAMES
        and one["phase"] in ENDED
        and all(isinstance(value, type(_SOUND[name])) for name, value in one.items())
        and all(isinstance(loss, float) for loss in one["losses"])
    )


def _file() -> Path:
    return runs_folder() / "board.json"


BOARD = Board()
