"""One running training: its steps, what it keeps on the way, and how it ends."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import comfy.model_management
from PIL import Image

from ....concept.concept import BlockLoRA
from ....training import Progress, Trainer
from ...interrupt import cancellable
from ...ledger import renew_slots
from ..memory import MemoryMeter, MemoryUse, is_out_of_memory
from ..progress import NodeProgress, to_pixels
from ..runs import Finished, NotKeptError, RunFiles, attempt, save_snapshot
from ..stopping import stopping
from .board import COLLECTING, TRAINING

KEPT_EVERY = 120.0
"""Seconds between two states on the disk."""

NO_GRAMS = (
    "Without Grams: all steps were made, but memory ran out while the Grams were collected, so Merge cannot fuse this "
    "concept yet. Run it again with more memory free, which only collects them; or use BlockLoRA Collect Grams with a "
    "smaller size or fewer pictures; or choose fewer layers."
)
"""What a report says when the last part of a run found no memory."""


@dataclass(frozen=True)
class TrainResult:
    """resumed: steps that were done before; kept: nothing was trained, an earlier run had the same inputs.

    steps: those wanted. stopped: it ended early, as its user wished, and its state waits. seconds, gram_seconds: of
    this run alone, training and collecting Grams. memory: None when no step was made. note: what the user should know
    besides. share: of the numbers in the model's linear weights, the part that its adapted layers have.
    """

    lora: BlockLoRA
    losses: list[float]
    niche_losses: list[float]
    samples: list[Image.Image]
    pictures: int
    layers: int
    seconds: float = 0.0
    gram_seconds: float = 0.0
    resumed: int = 0
    steps: int = 0
    kept: bool = False
    stopped: bool = False
    memory: MemoryUse | None = None
    share: float = 0.0
    note: str = ""
    snapshots: list[Path] = field(default_factory=list)


class RunningTraining:
    """One trainer, what is told of it, and what it leaves behind."""

    def __init__(self, trainer: Trainer, files: RunFiles, progress: NodeProgress, meter: MemoryMeter, resumed: int):
        self.trainer, self.files, self.progress, self.meter = trainer, files, progress, meter
        self.resumed, self.snapshots, self.live = resumed, list[Path](), progress.live
        self.reported, self.note = resumed, ""
        self.last = self.kept = time.perf_counter()
        self.pause = KEPT_EVERY

    def go(self) -> TrainResult:
        """To the end. Whatever ends the run before it, what was learnt is saved first; NotKeptError when that fails.

        Without memory for the Grams, after the last step, the result goes without them.
        """
        started = self.last
        self.live.resumed = self.live.step = self.resumed
        self.live.to(COLLECTING if self.trainer.enough else TRAINING)
        try:
            with stopping() as self.stop, self.meter, cancellable():
                self.trainer.run(self._after_step)
        except comfy.model_management.InterruptProcessingException as error:
            self._keep("was cancelled", error)
            raise
        except BaseException as error:
            if not self._all_made or not is_out_of_memory(error):
                self._keep(f"stopped ({error})", error)
                raise
            self.note = NO_GRAMS
            logging.warning("BlockLoRA: %s", self.note)
        return self._result(self.last - started, time.perf_counter() - self.last)

    @property
    def _all_made(self) -> bool:
        return self.trainer.enough or self.reported == self.trainer.config.steps

    def _after_step(self, state: Progress) -> None:
        if self.meter.use is None:
            logging.info("BlockLoRA: %s", self.meter.read(self.trainer.learner))
        every = self.trainer.config.save_every
        if every and state.step % every == 0 and state.step < state.steps:
            attempt("a snapshot", lambda: self.snapshots.append(save_snapshot(self.trainer)))
            self._keep_state()
        elif self.last - self.kept > self.pause or self.stop.signal is not None:
            self._keep_state()
        if self.stop.signal is not None:
            self.stop.kept.set()
            self.stop.obey()
        self.progress(state)
        self.reported = state.step
        self.trainer.enough = self.trainer.enough or self.live.stop_wanted
        if self._all_made:
            # Collecting the Grams may take minutes, and keeps nothing itself.
            self._keep_state()
            self.stop.kept.set()
            self.live.to(COLLECTING)
        self.last = time.perf_counter()

    def _keep_state(self) -> str:
        started = time.perf_counter()
        said = attempt("the state of the training", lambda: self.files.keep_state(self.trainer))
        renew_slots()
        self.kept = time.perf_counter()
        # A slow disk must not take more than a twentieth of the time.
        self.pause = max(KEPT_EVERY, 20 * (self.kept - started))
        return said

    def _keep(self, why: str, error: BaseException) -> None:
        name = self.trainer.concept.name
        logging.warning("BlockLoRA: training of %s %s after %d steps", name, why, len(self.trainer.losses))
        if not self.trainer.losses:
            return
        said = [attempt("what was learnt", self._keep_lora), self._keep_state()]
        self.live.kept = len(self.trainer.losses) if self.files.is_broken_off else 0
        if any(said):
            raise NotKeptError(
                f"The training of {name} {why} after {len(self.trainer.losses)} steps. {' '.join(filter(None, said))} "
                "Make room on the disk and run it again before you close ComfyUI: it goes on where it stopped."
            ) from error

    def _keep_lora(self) -> None:
        logging.warning("BlockLoRA: what it learnt is in %s", self.files.keep_lora(self.trainer))

    def _result(self, seconds: float, gram_seconds: float) -> TrainResult:
        trainer, samples = self.trainer, self.progress.samples
        result = TrainResult(
            lora=trainer.result(),
            losses=trainer.losses,
            niche_losses=trainer.niche_losses,
            samples=samples,
            pictures=len(trainer.dataset),
            layers=len(trainer.adapters.adapters),
            seconds=seconds,
            gram_seconds=gram_seconds,
            resumed=self.resumed,
            steps=trainer.config.steps,
            stopped=len(trainer.losses) < trainer.config.steps,
            memory=self.meter.use,
            snapshots=self.snapshots,
            note=self.note,
        )
        sample = to_pixels(samples[-1]) if samples else None
        done = Finished(result.lora, result.losses, result.niche_losses, sample)
        if self.note or result.stopped:
            attempt("the state of the training", lambda: self.files.keep_state(trainer))
            self.live.kept = len(trainer.losses) if result.stopped and self.files.is_broken_off else 0
        else:
            attempt("the finished training", lambda: self.files.finish(done))
        return result
