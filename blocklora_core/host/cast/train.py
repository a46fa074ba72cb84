"""A cast trained by whoever executes it, by Train's own function; each concept is kept when it is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ...cast.inputs import inputs_of, stamp_of
from ...cast.journal import DEALT, FAILED, FINISHED, Entry
from ...cast.member import Cast, Member
from ...cast.planning import Plan, Row
from ...cast.tasks import Executor, OnProgress, Task, told, unheard
from ...concept.concept import Concept
from ...files.writing import FullDiskError
from ..disk import owned_by, target_file, write
from ..ledger import hold_slot, release_slot
from ..train.folders import read_folder
from ..train.train import AUTO_SLOT, TrainJob
from .base import Facts, Place, make_plan
from .worker import TRAIN, Learnt

Told = Callable[[Entry], None]
"""Told of every entry that the journal gets."""


@dataclass(frozen=True)
class Trained:
    """plan: as it is at the end. failed: concept -> why."""

    plan: Plan
    failed: dict[str, str]


def train_cast(
    cast: Cast,
    base: Facts,
    executor: Executor,
    told: Told,
    on_progress: OnProgress = unheard,
    node_id: str | None = None,
) -> Trained:
    """Train whoever is not finished. One that fails is told of at the end and stops nobody.

    InterruptProcessingException when the user cancels: what was learnt waits, and the same call goes on with it.
    CastError while another process trains it, FullDiskError where the disk takes no file.
    """
    here, failed = Place.of(cast, base), dict[str, str]()
    with here.alone():
        todo = make_plan(cast, base).to_train
        deal_all(here, todo, base)
        orders = {row.member.concept.name: Order(row, base, here, node_id) for row in todo}
        with closing(executor.run([order.task for order in orders.values()], on_progress)) as outcomes:
            for outcome in outcomes:
                entry = orders[outcome.task.concept].entry(outcome.result, outcome.error)
                if entry.event == FAILED:
                    failed[entry.concept] = entry.error
                here.journal.add(entry)
                told(entry)
        return Trained(make_plan(cast, base), failed)


def deal_all(here: Place, rows: Sequence[Row], base: Facts) -> None:
    """Write down who has which slot before anyone is trained: whoever joins the cast later moves nobody, and no other
    training on these folders is given one of them."""
    for row in rows:
        scheme = row.member.config.adapter.scheme
        if scheme is not None and row.slot is not None:
            hold_slot(base.name, base.versioned(scheme), row.member.concept, row.slot)
    new = [row for row in rows if row.entry is None or row.entry.slot != row.slot]
    if new:
        here.journal.add(*(Entry(row.member.concept.name, DEALT, row.slot) for row in new))


class Order:
    """One concept that is to be trained: what a worker is given, and what becomes of what it gives back."""

    def __init__(self, row: Row, base: Facts, here: Place, node_id: str | None):
        self.row, self.base, self.here, self.node_id = row, base, here, node_id
        self.marks = {"stamp": "", "inputs": ""}

    @property
    def task(self) -> Task:
        return Task(self.row.member.concept.name, TRAIN, self._make)

    def _make(self) -> tuple[TrainJob]:
        # Before it is trained: what changes meanwhile makes it another one.
        of = self.row.member, self.base.mark, self.row.slot
        self.marks = {"stamp": stamp_of(*of), "inputs": inputs_of(*of)}
        return (job_of(self.row.member, self.row.slot, self.node_id),)

    def entry(self, learnt: Learnt | None, error: str) -> Entry:
        """What the journal is to hold, once the file is written. FullDiskError, as the others would end so, too."""
        concept, slot = self.row.member.concept, self.row.slot
        try:
            if learnt is not None and not error:
                return self._written(concept, learnt)
        except FullDiskError:
            raise
        except (OSError, ValueError) as failed:
            error = told(failed)
        return Entry(concept.name, FAILED, slot, error=error)

    def _written(self, concept: Concept, learnt: Learnt) -> Entry:
        path = keep(self.here, self.base, concept, learnt.lora)
        scheme = self.row.member.config.adapter.scheme
        if scheme is not None:
            release_slot(self.base.name, self.base.versioned(scheme), concept)
        return Entry(
            concept.name,
            FINISHED if learnt.whole else DEALT,
            self.row.slot,
            **self.marks,
            file=path.name,
            bytes=path.stat().st_size,
            seconds=learnt.seconds,
            memory=learnt.memory,
            error=learnt.note,
        )


def keep(here: Place, base: Facts, concept: Concept, lora: bytes) -> Path:
    """Write a file of the cast, in place of an older one of the same concept."""
    return write(target_file(here.prefix, concept), lora, owned_by(concept, base.name))


def job_of(member: Member, slot: int | None, node_id: str | None = None) -> TrainJob:
    """What Train's node would be given for `member`, its pictures read."""
    read = read_folder(member.folder, member.key, member.words)
    return TrainJob(
        concept=member.concept,
        images=read.pictures,
        captions=read.captions,
        config=member.config,
        slot=AUTO_SLOT if slot is None else slot,
        resolution=member.run.resolution,
        layers=member.run.layers,
        precision=member.run.precision,
        checkpointing=member.run.checkpointing,
        node_id=node_id,
        masks=read.masks,
        layer_pattern=member.run.layer_pattern,
    )
