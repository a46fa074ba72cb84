"""One training run inside ComfyUI, from MODEL, CLIP, VAE and pictures to a BlockLoRA."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ...concept.concept import Concept
from ...concept.rows import BY_NAME, BY_PARTS
from ...training import Dataset, TrainConfig, Trainer
from ...training.state import run_key
from ..base import base_name
from ..comfy import ComfyClip, ComfyModel, ComfyVae
from ..ledger import held_slot
from ..weights.autograd import training_mode
from ..weights.names import model_weights
from .live.board import BOARD, ENCODING, PREPARING, Run
from .live.run import RunningTraining, TrainResult
from .memory import MemoryMeter, MemorySettings, load_told, memory_advice
from .pictures import make_dataset
from .port import ComfyPort, decode_between, training_port
from .precision import AUTO, dtype_for
from .progress import NodeProgress, to_picture
from .runs import Finished, NotKeptError, RunFiles, inputs_of

AUTO_SLOT = -1


@dataclass(frozen=True)
class TrainJob:
    """What the Train node was given. slot AUTO_SLOT picks one; resolution 0 keeps the pictures' size.

    checkpointing: compute activations anew in the backward pass instead of keeping them.
    resume: go on where the very same run was broken off. again: train also what was trained to its end before.
    layers, layer_pattern: see layers.layer_choice. node_id, workflow: where the page looks for its state.
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
    workflow: str = ""
    masks: Sequence[torch.Tensor] = ()
    resume: bool = True
    again: bool = False
    layer_pattern: str = ""


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
def _in_slot(model: ComfyModel, job: TrainJob) -> Iterator[TrainJob]:
    """`job` with the slot that it gets, see `ledger.held_slot`, and its scheme as the model needs it."""
    scheme, slot = job.config.adapter.scheme, None if job.slot == AUTO_SLOT else job.slot
    if scheme is None:
        yield replace(job, config=job.config.changed(slot=slot))
        return
    parts = set(model_weights(model).parts.values())
    scheme = replace(scheme, version=BY_PARTS if parts else BY_NAME)
    with held_slot(base_name(model), scheme, job.concept, slot, parts=parts, waits=NotKeptError) as held:
        yield replace(job, config=job.config.changed(scheme=scheme, slot=held))


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
    run = BOARD.begin(
        node=job.node_id,
        workflow=job.workflow,
        concept=job.concept.name,
        class_word=job.concept.class_word,
        steps=job.config.steps,
    )
    with BOARD.showing(run), _in_slot(model, job) as ready:
        return _train_job(model, clip, vae, ready, run)


def _train_job(model: ComfyModel, clip: ComfyClip, vae: ComfyVae, job: TrainJob, run: Run) -> TrainResult:
    dtype = dtype_for(model, job.precision)
    settings = MemorySettings(job.checkpointing, job.config.batch_size, job.resolution, dtype, job.layers, model)
    with memory_advice(settings), training_mode():
        run.pictures = len(job.images)
        run.to(ENCODING)
        dataset = _dataset(vae, model, job)
        run.to(PREPARING)
        with training_port(
            model,
            clip,
            layers=job.layers,
            precision=job.precision,
            checkpointing=job.checkpointing,
            layer_pattern=job.layer_pattern,
            load=False,
        ) as port:
            progress = NodeProgress(job.node_id, run, lambda latents: decode_between(vae, port, latents))
            return _train(port, dataset, job, dtype, progress)


def _train(port: ComfyPort, dataset: Dataset, job: TrainJob, dtype: torch.dtype, progress: NodeProgress) -> TrainResult:
    def make() -> Trainer:
        return Trainer(port, dataset, job.concept, job.config)

    expected = load_told(port, make())
    inputs = inputs_of(make(), port, dtype)
    files = RunFiles(run_key(job.config, inputs), inputs)
    run = progress.live
    run.key = files.key
    done = None if job.again else files.finished()
    if done is not None:
        run.stepped(done.losses, 0.0)
        return replace(_kept_result(done, len(dataset)), share=port.share)
    trainer, resumed = _started(make, files, job.resume)
    trainer.enough = BOARD.is_enough(files.key, resumed)
    meter = MemoryMeter(port.device, [port.model, port.clip.patcher], expected)
    return replace(RunningTraining(trainer, files, progress, meter, resumed).go(), share=port.share)
