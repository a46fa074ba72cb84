"""One training run inside ComfyUI, from MODEL, CLIP, VAE and pictures to a BlockLoRA."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
from ..ledger import choose_slot, hold_slot
from ..weights.autograd import training_mode
from .layers import layer_choice
from .memory import Levers, MemoryMeter, MemoryUse, is_out_of_memory, naming_levers
from .pictures import make_dataset
from .port import ComfyPort, decode_latents
from .precision import AUTO, computing_in, dtype_for, held_in
from .progress import NodeProgress, to_picture, to_pixels
from .runs import Finished, RunFiles, inputs_of, save_interrupted, save_snapshot

AUTO_SLOT = -1

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


def _attempt(what: str, action: Callable[[], object]) -> None:
    """Save something beside the training, which goes on, or ends as it does, when that fails."""
    try:
        action()
    except Exception as error:  # noqa: BLE001  (of whatever kind: the training itself must not be lost by it)
        logging.error("BlockLoRA: %s could not be saved: %s", what, error)


class _Run:
    """One trainer and what it leaves behind."""

    def __init__(self, trainer: Trainer, files: RunFiles, progress: NodeProgress, meter: MemoryMeter, resumed: int):
        self.trainer, self.files, self.progress, self.meter = trainer, files, progress, meter
        self.resumed, self.snapshots = resumed, list[Path]()
        self.reported, self.note = resumed, ""
        self.last = time.perf_counter()

    def go(self) -> TrainResult:
        """To the end. Whatever ends the run before it, what was learnt is saved first.

        Without memory for the Grams, after the last step, the result goes without them.
        """
        started = self.last
        try:
            with self.meter:
                self.trainer.run(self._after_step)
        except comfy.model_management.InterruptProcessingException:
            self._keep("was cancelled")
            raise
        except BaseException as error:
            if self.reported < self.trainer.config.steps or not is_out_of_memory(error):
                self._keep(f"stopped ({error})")
                raise
            self.note = NO_GRAMS
            logging.warning("BlockLoRA: %s", self.note)
        return self._result(self.last - started, time.perf_counter() - self.last)

    def _after_step(self, state: Progress) -> None:
        if self.meter.use is None:
            logging.info("BlockLoRA: %s", self.meter.read(self.trainer.learner))
        every = self.trainer.config.save_every
        if every and state.step % every == 0 and state.step < state.steps:
            _attempt("a snapshot", lambda: self.snapshots.append(save_snapshot(self.trainer)))
            _attempt("the state of the training", lambda: self.files.keep_state(self.trainer))
        self.progress(state)
        self.reported = state.step
        self.last = time.perf_counter()

    def _keep(self, why: str) -> None:
        name = self.trainer.concept.name
        logging.warning("BlockLoRA: training of %s %s after %d steps", name, why, len(self.trainer.losses))
        if self.trainer.losses:
            _attempt("what was learnt", self._keep_lora)
            _attempt("the state of the training", lambda: self.files.keep_state(self.trainer))

    def _keep_lora(self) -> None:
        logging.warning("BlockLoRA: what it learnt is in %s", save_interrupted(self.trainer))

    def _result(self, seconds: float, gram_seconds: float) -> TrainResult:
        trainer, samples = self.trainer, self.progress.samples
        result = TrainResult(
            trainer.result(), trainer.losses, trainer.niche_losses, samples, len(trainer.dataset),
            len(trainer.adapters.adapters), seconds, gram_seconds, self.resumed, memory=self.meter.use,
            snapshots=self.snapshots, note=self.note,
        )  # fmt: skip
        sample = to_pixels(samples[-1]) if samples else None
        done = Finished(result.lora, result.losses, result.niche_losses, sample)
        if self.note:
            _attempt("the state of the training", lambda: self.files.keep_state(trainer))
        else:
            _attempt("the finished training", lambda: self.files.finish(done))
        return result


def _kept_result(run: Finished, pictures: int) -> TrainResult:
    samples = [] if run.sample is None else [to_picture(run.sample[None].float() / 255)]
    return TrainResult(run.lora, run.losses, run.niche_losses, samples, pictures, len(run.lora.layers), kept=True)


def _started(make: Callable[[], Trainer], files: RunFiles, resume: bool) -> tuple[Trainer, int]:
    """A trainer, where the run was broken off if that can be, and the steps it has done."""
    trainer = make()
    if not resume or not files.state.exists():
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


def _slot(base: str, job: TrainJob) -> int | None:
    scheme, given = job.config.adapter.scheme, None if job.slot == AUTO_SLOT else job.slot
    if scheme is None:
        return given
    if given is None:
        return choose_slot(base, scheme, job.concept)
    hold_slot(base, scheme, job.concept, given)
    return given


@contextmanager
def training_port(
    model: ComfyModel,
    clip: ComfyClip,
    layers: str = "attention",
    precision: str = AUTO,
    checkpointing: bool = False,
    layer_pattern: str = "",
) -> Iterator[ComfyPort]:
    """MODEL and CLIP made ready for a training run, and left as they were when the block ends."""
    dtype = dtype_for(model, precision)
    port = ComfyPort(computing_in(model, dtype), clip, layer_choice(layers, layer_pattern))
    with held_in(port.model.model, dtype), port.recomputing() if checkpointing else nullcontext():
        yield port


def _dataset(vae: ComfyVae, model: ComfyModel, job: TrainJob) -> Dataset:
    images, masks = (
        [given.clone() if given.is_inference() else given for given in each] for each in (job.images, job.masks)
    )
    concept, config = job.concept, job.config
    return make_dataset(
        vae, model, images, job.captions, masks, concept.name, concept.class_word, job.resolution, config.batch_size,
        config.captions,
    )  # fmt: skip


def train_concept(model: ComfyModel, clip: ComfyClip, vae: ComfyVae, job: TrainJob) -> TrainResult:
    """Train `job` on frozen MODEL and CLIP, unless a run with the same inputs was finished before.

    What was learnt is saved when the user cancels or an error ends the run, and the state to go on from.
    TrainingMemoryError when memory runs out.
    """
    job = replace(job, config=job.config.changed(slot=_slot(base_name(model), job)))
    dtype = dtype_for(model, job.precision)
    levers = Levers(job.checkpointing, job.config.batch_size, job.resolution, dtype, job.layers)
    with naming_levers(levers), training_mode():
        dataset = _dataset(vae, model, job)
        progress = NodeProgress(
            job.node_id, job.config.steps, job.concept.name, lambda latents: decode_latents(vae, model, latents)
        )
        with training_port(model, clip, job.layers, job.precision, job.checkpointing, job.layer_pattern) as port:
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
    meter = MemoryMeter(port.device, [port.model.model, port.clip.cond_stage_model])
    return replace(_Run(trainer, files, progress, meter, resumed).go(), share=port.share)
