"""One training run inside ComfyUI, from MODEL, CLIP, VAE and pictures to a BlockLoRA."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import comfy.model_management
import torch
from PIL import Image

from ...concept.concept import BlockLoRA, Concept
from ...training import Dataset, Progress, TrainConfig, Trainer
from ...training.state import run_key
from ..base import base_name
from ..comfy import ComfyClip, ComfyModel, ComfyVae
from ..interrupt import cancellable
from ..ledger import choose_slot, given_slots, hold_slot, release_slot, renew_slots
from ..weights.autograd import training_mode
from .memory import MemoryMeter, MemorySettings, MemoryUse, is_out_of_memory, memory_advice
from .pictures import make_dataset
from .port import ComfyPort, decode_latents, training_port
from .precision import AUTO, dtype_for
from .progress import NodeProgress, to_picture, to_pixels
from .runs import Finished, NotKeptError, RunFiles, attempt, inputs_of, save_interrupted, save_snapshot
from .stopping import stopping

AUTO_SLOT = -1

KEPT_EVERY = 120.0
"""Seconds between two states on the disk."""

NO_GRAMS = (
    "Without Grams: all steps were made, but memory ran out while the Grams were collected, so Merge cannot fuse this "
    "concept yet. Run it again with more memory free, which only collects them; or use BlockLoRA Collect Grams with a "
    "smaller size or fewer pictures; or choose fewer layers."
)
"""What a report says when the last part of a run found no memory."""


@dataclass(frozen=True)
class TrainJob:
    """What the Train node was given. slot AUTO_SLOT picks one; resolution 0 keeps the pictures' size.

    checkpointing: compute activations anew in the backward pass instead of keeping them.
    resume: go on where the very same run was broken off. again: train also what was trained to its end before.
    layers, layer_pattern: see layers.layer_choice.
    """

    concept: Concept
    images: Sequence[torch.Tensor]
    captions: Sequence[str]
    config: TrainConfig
    slot: int = AUTO_SLOT
    resolution: int = 512
    layers: str = "attention"
    precision: str = AUTO
    checkpointing: bool = False
    node_id: str | None = None
    masks: Sequence[torch.Tensor] = ()
    resume: bool = True
    again: bool = False
    layer_pattern: str = ""


@dataclass(frozen=True)
class TrainResult:
    """resumed: steps that were done before; kept: nothing was trained, an earlier run had the same inputs.

    seconds, gram_seconds: of this run alone, training and collecting Grams. memory: None when no step was made.
    note: what the user should know besides. share: of the numbers in the model's linear weights, the part that its
    adapted layers have.
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
    kept: bool = False
    memory: MemoryUse | None = None
    share: float = 0.0
    note: str = ""
    snapshots: list[Path] = field(default_factory=list)


class _Run:
    """One trainer and what it leaves behind."""

    def __init__(self, trainer: Trainer, files: RunFiles, progress: NodeProgress, meter: MemoryMeter, resumed: int):
        self.trainer, self.files, self.progress, self.meter = trainer, files, progress, meter
        self.resumed, self.snapshots = resumed, list[Path]()
        self.reported, self.note, self.pause = resumed, "", KEPT_EVERY
        self.last = self.kept = time.perf_counter()

    def go(self) -> TrainResult:
        """To the end. Whatever ends the run before it, what was learnt is saved first; NotKeptError when that fails.

        Without memory for the Grams, after the last step, the result goes without them.
        """
        started = self.last
        try:
            with stopping() as self.stop, self.meter, cancellable():
                self.trainer.run(self._after_step)
        except comfy.model_management.InterruptProcessingException as error:
            self._keep("was cancelled", error)
            raise
        except BaseException as error:
            if self.reported < self.trainer.config.steps or not is_out_of_memory(error):
                self._keep(f"stopped ({error})", error)
                raise
            self.note = NO_GRAMS
            logging.warning("BlockLoRA: %s", self.note)
        return self._result(self.last - started, time.perf_counter() - self.last)

    def _after_step(self, state: Progress) -> None:
        if self.meter.use is None:
            logging.info("BlockLoRA: %s", self.meter.read(self.trainer.learner))
        # Collecting the Grams, which comes then, may take minutes and keeps nothing itself.
        every, last = self.trainer.config.save_every, state.step == state.steps
        if every and state.step % every == 0 and state.step < state.steps:
            attempt("a snapshot", lambda: self.snapshots.append(save_snapshot(self.trainer)))
            self._keep_state()
        elif last or self.last - self.kept > self.pause or self.stop.signal is not None:
            self._keep_state()
        if last or self.stop.signal is not None:
            self.stop.kept.set()
            self.stop.obey()
        self.progress(state)
        self.reported = state.step
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
        if any(said):
            raise NotKeptError(
                f"The training of {name} {why} after {len(self.trainer.losses)} steps. {' '.join(filter(None, said))} "
                "Make room on the disk and run it again before you close ComfyUI: it goes on where it stopped."
            ) from error

    def _keep_lora(self) -> None:
        logging.warning("BlockLoRA: what it learnt is in %s", save_interrupted(self.trainer))

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
            memory=self.meter.use,
            snapshots=self.snapshots,
            note=self.note,
        )
        sample = to_pixels(samples[-1]) if samples else None
        done = Finished(result.lora, result.losses, result.niche_losses, sample)
        if self.note:
            attempt("the state of the training", lambda: self.files.keep_state(trainer))
        else:
            attempt("the finished training", lambda: self.files.finish(done))
        return result


def _kept_result(run: Finished, pictures: int) -> TrainResult:
    samples = [] if run.sample is None else [to_picture(run.sample[None].float() / 255)]
    return TrainResult(
        lora=run.lora,
        losses=run.losses,
        niche_losses=run.niche_losses,
        samples=samples,
        pictures=pictures,
        layers=len(run.lora.layers),
        kept=True,
    )


def _started(make: Callable[[], Trainer], files: RunFiles, resume: bool) -> tuple[Trainer, int]:
    """A trainer, where the run was broken off if that can be, and the steps it has done."""
    trainer = make()
    if not resume or not files.is_broken_off:
        return trainer, 0
    queues = trainer.dataset.queues()
    try:
        done = files.resume(trainer)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        logging.warning("BlockLoRA: the kept state of this training is no good, it starts anew: %s", error)
        trainer.dataset.put_queues(queues)
        return make(), 0
    logging.info("BlockLoRA: training of %s goes on after step %d", trainer.concept.name, done)
    return trainer, done


@contextmanager
def _slot(base: str, job: TrainJob) -> Iterator[int | None]:
    """The slot that the training gets. It is free again when the training fails, unless what it learnt waits in it."""
    scheme, slot = job.config.adapter.scheme, None if job.slot == AUTO_SLOT else job.slot
    if scheme is None:
        yield slot
        return
    before = any(given[:2] == (base, scheme) and given[3] == job.concept.name for given in given_slots())
    if slot is None:
        slot = choose_slot(base, scheme, job.concept)
    else:
        hold_slot(base, scheme, job.concept, slot)
    try:
        yield slot
    except NotKeptError:
        raise
    except BaseException:
        if not before:
            release_slot(base, scheme, job.concept)
        raise


def _dataset(vae: ComfyVae, model: ComfyModel, job: TrainJob) -> Dataset:
    images, masks = (
        [given.clone() if given.is_inference() else given for given in each] for each in (job.images, job.masks)
    )
    concept, config = job.concept, job.config
    return make_dataset(
        vae,
        model,
        images=images,
        captions=job.captions,
        masks=masks,
        concept=concept.name,
        class_word=concept.class_word,
        resolution=job.resolution,
        batch_size=config.batch_size,
        rules=config.captions,
    )


def train_concept(model: ComfyModel, clip: ComfyClip, vae: ComfyVae, job: TrainJob) -> TrainResult:
    """Train `job` on frozen MODEL and CLIP, unless a run with the same inputs was finished before.

    What was learnt is saved when the user cancels or an error ends the run, and the state to go on from.
    TrainingMemoryError when memory runs out.
    """
    with _slot(base_name(model), job) as slot:
        return _train_in_slot(model, clip, vae, replace(job, config=job.config.changed(slot=slot)))


def _train_in_slot(model: ComfyModel, clip: ComfyClip, vae: ComfyVae, job: TrainJob) -> TrainResult:
    dtype = dtype_for(model, job.precision)
    settings = MemorySettings(job.checkpointing, job.config.batch_size, job.resolution, dtype, job.layers)
    with memory_advice(settings), training_mode():
        dataset = _dataset(vae, model, job)
        progress = NodeProgress(
            job.node_id, job.config.steps, job.concept.name, lambda latents: decode_latents(vae, model, latents)
        )
        with training_port(
            model,
            clip,
            layers=job.layers,
            precision=job.precision,
            checkpointing=job.checkpointing,
            layer_pattern=job.layer_pattern,
        ) as port:
            return _train(port, dataset, job, dtype, progress)


def _train(port: ComfyPort, dataset: Dataset, job: TrainJob, dtype: torch.dtype, progress: NodeProgress) -> TrainResult:
    def make() -> Trainer:
        return Trainer(port, dataset, job.concept, job.config)

    inputs = inputs_of(make(), port, dtype)
    files = RunFiles(run_key(job.config, inputs), inputs)
    done = None if job.again else files.finished()
    if done is not None:
        return replace(_kept_result(done, len(dataset)), share=port.share)
    trainer, resumed = _started(make, files, job.resume)
    meter = MemoryMeter(port.device, [port.model, port.clip.patcher])
    return replace(_Run(trainer, files, progress, meter, resumed).go(), share=port.share)
