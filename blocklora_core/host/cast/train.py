"""A cast trained: one concept after the other, by Train's own function, each kept when it is finished."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import torch

from ...cast.inputs import inputs_of, stamp_of
from ...cast.journal import DEALT, FAILED, FINISHED, Entry
from ...cast.member import Cast, Member
from ...cast.planning import Plan, Row
from ...concept.concept import BlockLoRA
from ..disk import owned_by, target_file, write_lora
from ..ledger import hold_slot, release_saved
from ..train.folders import read_folder
from ..train.live.run import TrainResult
from ..train.train import AUTO_SLOT, TrainJob, train_concept
from .base import Loaded, Place, make_plan, model_scheme

Told = Callable[[Entry], None]
"""Told of every entry that the journal gets."""


@dataclass(frozen=True)
class Trained:
    """plan: as it is at the end. failed: concept -> why."""

    plan: Plan
    failed: dict[str, str]


def train_cast(cast: Cast, base: Loaded, told: Told, node_id: str | None = None) -> Trained:
    """Train whoever is not finished. One that fails is told of at the end and stops nobody.

    InterruptProcessingException when the user cancels: what was learnt waits, and the same call goes on with it.
    """
    here, failed = Place.of(cast, base.name), dict[str, str]()
    todo = make_plan(cast, base).to_train
    deal_all(here, todo, base)
    for row in todo:
        entry = _attempt(row, base, here, node_id)
        if entry.event == FAILED:
            failed[entry.concept] = entry.error
        here.journal.add(entry)
        told(entry)
    return Trained(make_plan(cast, base), failed)


def deal_all(here: Place, rows: Sequence[Row], base: Loaded) -> None:
    """Write down who has which slot before anyone is trained: whoever joins the cast later moves nobody, and no other
    training on these folders is given one of them."""
    for row in rows:
        scheme = row.member.config.adapter.scheme
        if scheme is not None and row.slot is not None:
            hold_slot(base.name, model_scheme(base.model, scheme), row.member.concept, row.slot)
        if row.entry is None or row.entry.slot != row.slot:
            here.journal.add(Entry(row.member.concept.name, DEALT, row.slot))


def _attempt(row: Row, base: Loaded, here: Place, node_id: str | None) -> Entry:
    name = row.member.concept.name
    try:
        return train_row(row, base, here.prefix, node_id)
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:  # noqa: BLE001  (of whatever kind: the others are trained nevertheless)
        logging.error("BlockLoRA: %s was not trained: %s", name, error)
        return Entry(name, FAILED, row.slot, error=str(error)[:2000] or type(error).__name__)


def train_row(row: Row, base: Loaded, prefix: str, node_id: str | None = None) -> Entry:
    """Train one concept, save it, and say what the journal is to hold of it."""
    # Before it is trained: what changes meanwhile makes it another one.
    stamp, inputs = (told(row.member, base.mark, row.slot) for told in (stamp_of, inputs_of))
    with torch.inference_mode():
        result = train_concept(base.model, base.clip, base.vae, job_of(row.member, row.slot, node_id))
    path = save(result.lora, prefix)
    return _entry(row, result, path, stamp, inputs)


def save(lora: BlockLoRA, prefix: str) -> Path:
    """Below the loras folder, in place of an older file of the same concept."""
    path = write_lora(target_file(prefix, lora.concept), lora, owned_by(lora))
    release_saved(lora)
    return path


def _entry(row: Row, result: TrainResult, path: Path, stamp: str, inputs: str) -> Entry:
    # What the user stopped, or lacks its Grams, goes on the next time.
    whole = not result.stopped and not result.note
    return Entry(
        row.member.concept.name,
        FINISHED if whole else DEALT,
        row.slot,
        inputs=inputs,
        stamp=stamp,
        file=path.name,
        bytes=path.stat().st_size,
        # Of a run that was resumed nobody knows all.
        seconds=0.0 if result.resumed else round(result.seconds + result.gram_seconds, 3),
        memory=result.memory.total if result.memory else 0,
        error=result.note,
    )


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
