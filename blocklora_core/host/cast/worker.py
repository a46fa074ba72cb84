"""Who works on a cast: keeps one base and does what it is asked for, in this process or in a cluster's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import comfy.clip_vision
import comfy.model_management
import comfy.utils
import folder_paths
import torch

from ...cast.tasks import OnProgress, Outcome, Progress, Task, told, unheard
from ...concept.concept import BlockLoRA, Stack
from ...evaluation import Evaluation, Reference
from ...files.io import encode
from ..evaluate.clip_embedder import ClipEmbedder
from ..evaluate.evaluate import evaluate
from ..evaluate.job import EvaluateJob
from ..ledger import given_slots, release_slot
from ..train.collect import CollectJob, collect
from ..train.train import TrainJob, train_concept
from .base import Loaded

T = TypeVar("T")

TRAIN, COLLECT, EVALUATE, FACTS = "train", "collect", "evaluate", "facts"
"""What a worker can be asked for."""


class Learnt(NamedTuple):
    """A trained concept as it goes to the driver, who alone writes it. lora: the bytes of its file. whole: whether it
    needs no more training. seconds: 0 where nobody knows all. memory: bytes, 0 unknown."""

    lora: bytes
    whole: bool
    seconds: float
    memory: int
    note: str


def _train(base: Loaded, job: TrainJob) -> Learnt:
    with torch.inference_mode(), _slot_left(base, job):
        result = train_concept(base.model, base.clip, base.vae, job)
    return Learnt(
        encode(result.lora, torch.float16),
        # What the user stopped, or lacks its Grams, goes on the next time.
        whole=not result.stopped and not result.note,
        seconds=0.0 if result.resumed else round(result.seconds + result.gram_seconds, 3),
        memory=result.memory.total if result.memory else 0,
        note=result.note,
    )


@contextmanager
def _slot_left(base: Loaded, job: TrainJob) -> Iterator[None]:
    """The driver deals the slots: where its folders are not this process's, none is held here afterwards."""
    name, facts = job.concept.name, base.facts
    ours = {given for given in given_slots() if given[0] == facts.name and given[3] == name}
    try:
        yield
    finally:
        scheme = job.config.adapter.scheme
        if scheme is not None and not ours:
            release_slot(facts.name, facts.versioned(scheme), job.concept)


def _collect(base: Loaded, lora: BlockLoRA, job: CollectJob) -> bytes:
    with torch.inference_mode():
        (collected,) = collect(base.model, base.clip, (lora,), job).stack
    return encode(collected, torch.float16)


def _evaluate(
    base: Loaded, stack: Stack, references: list[Reference], vision: str, names: tuple[str, ...], job: EvaluateJob
) -> Evaluation:
    path = Path(folder_paths.get_full_path("clip_vision", vision) or vision)
    if not path.is_file():
        raise ValueError(f"CLIP vision: expected a file of the clip_vision folder, or a path, got {vision!r}.")
    with torch.inference_mode():
        embedder = ClipEmbedder(comfy.clip_vision.load(str(path)))
        ready = replace(job, counts=(len(stack),), names=names)
        return evaluate((base.model, base.clip, base.vae), stack, references, embedder, ready).evaluation


WORKS: Mapping[str, Callable[..., Any]] = {
    TRAIN: _train,
    COLLECT: _collect,
    EVALUATE: _evaluate,
    FACTS: lambda base: base.facts,
}


class InTurn:
    """An executor: this process, one task after the other. InterruptProcessingException when the user cancels."""

    size = 1

    def __init__(self, base: Loaded):
        self.base = base

    def share(self, value: T) -> T:
        return value

    def run(self, tasks: Iterable[Task], on_progress: OnProgress = unheard) -> Generator[Outcome, None, None]:
        for task in tasks:
            with heard(partial(on_progress, task.concept)):
                outcome = self._attempt(task)
            yield outcome

    def _attempt(self, task: Task) -> Outcome:
        try:
            return Outcome(task, WORKS[task.work](self.base, *task.make()))
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:  # noqa: BLE001  (of whatever kind: the others are done nevertheless)
            logging.error("BlockLoRA: %s failed: %s", task.concept, error)
            return Outcome(task, error=told(error))


@contextmanager
def heard(on_progress: Callable[[Progress], None]) -> Iterator[None]:
    """While the block runs, the host's progress bars tell `on_progress`, and whom they told before."""
    before = getattr(comfy.utils, "PROGRESS_BAR_HOOK", None)

    def hear(value: int, total: int, *preview: Any, **node: Any) -> None:
        on_progress(Progress(value, total))
        if before is not None:
            before(value, total, *preview, **node)

    comfy.utils.set_progress_bar_global_hook(hear)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(before)
