"""One training run inside ComfyUI, from MODEL, CLIP, VAE and pictures to a BlockLoRA."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import comfy.model_management
import torch
from PIL import Image

from ..files import save
from ..lora import BlockLoRA, Concept
from ..training import Dataset, Progress, TrainConfig, Trainer
from .base import base_name
from .handles import ComfyClip, ComfyModel, ComfyVae
from .layers import layer_choice
from .ledger import choose_slot, hold_slot
from .pictures import make_dataset
from .port import ComfyPort, decode_latents
from .precision import AUTO, compute_dtype, computing_in, held_in
from .progress import NodeProgress
from .saving import loras_folder, safe_name
from .weights import training_mode

AUTO_SLOT = -1


@dataclass(frozen=True)
class TrainJob:
    """What the Train node was given. slot AUTO_SLOT picks one; resolution 0 keeps the pictures' size.

    checkpointing: compute activations anew in the backward pass instead of keeping them.
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
    layer_pattern: str = ""


@dataclass(frozen=True)
class TrainResult:
    lora: BlockLoRA
    losses: list[float]
    niche_losses: list[float]
    samples: list[Image.Image]
    seconds: float
    gram_seconds: float
    pictures: int
    layers: int


def kept_path(concept: Concept, step: int) -> Path:
    """Where what an interrupted training learnt is saved."""
    folder = loras_folder() / "blocklora" / "interrupted"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{safe_name(concept)}_step{step}.safetensors"


def _keep(trainer: Trainer, why: str) -> None:
    if not trainer.losses:
        return
    path = kept_path(trainer.concept, len(trainer.losses))
    try:
        # float32: a diverging run may leave numbers that float16 cannot hold.
        save(path, trainer.result(), dtype=torch.float32, overwrite=True)
    except ValueError as error:
        # What ended the training matters more, and is raised by the caller.
        logging.error("BlockLoRA: training of %s %s; it left nothing to keep: %s", trainer.concept.name, why, error)
        return
    logging.warning("BlockLoRA: training of %s %s; what it learnt is in %s", trainer.concept.name, why, path)


def _run(trainer: Trainer, progress: NodeProgress) -> tuple[float, float]:
    """Seconds of training, and of collecting Grams after it."""
    started, last = time.perf_counter(), [time.perf_counter()]

    def report(state: Progress) -> None:
        progress(state)
        last[0] = time.perf_counter()

    try:
        trainer.run(report)
    except comfy.model_management.InterruptProcessingException:
        _keep(trainer, "was cancelled")
        raise
    except (ValueError, RuntimeError) as error:
        _keep(trainer, f"stopped ({error})")
        raise
    return last[0] - started, time.perf_counter() - last[0]


def _slot(base: str, job: TrainJob) -> int | None:
    scheme, given = job.config.scheme, None if job.slot == AUTO_SLOT else job.slot
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
    dtype = compute_dtype(model.load_device, precision)
    port = ComfyPort(computing_in(model, dtype), clip, layer_choice(layers, layer_pattern))
    with held_in(port.model.model, dtype), port.recomputing() if checkpointing else nullcontext():
        yield port


def train_concept(model: ComfyModel, clip: ComfyClip, vae: ComfyVae, job: TrainJob) -> TrainResult:
    """Train `job` on frozen MODEL and CLIP. What was learnt is saved when the user cancels or an error ends the run."""
    config = replace(job.config, slot=_slot(base_name(model), job))
    with training_mode():
        images, masks = (
            [given.clone() if given.is_inference() else given for given in each] for each in (job.images, job.masks)
        )
        dataset = make_dataset(
            vae,
            model,
            images,
            job.captions,
            masks,
            job.concept.name,
            job.concept.class_word,
            job.resolution,
            config.batch_size,
            config.captions,
        )
        progress = NodeProgress(
            job.node_id, config.steps, job.concept.name, lambda latents: decode_latents(vae, model, latents)
        )
        with training_port(model, clip, job.layers, job.precision, job.checkpointing, job.layer_pattern) as port:
            trainer = Trainer(port, dataset, job.concept, config)
            seconds, gram_seconds = _run(trainer, progress)
    return _result(trainer, dataset, progress, seconds, gram_seconds)


def _result(
    trainer: Trainer, dataset: Dataset, progress: NodeProgress, seconds: float, gram_seconds: float
) -> TrainResult:
    return TrainResult(
        trainer.result(), trainer.losses, trainer.niche_losses, progress.samples, seconds, gram_seconds,
        len(dataset), len(trainer.adapters.adapters),
    )  # fmt: skip
