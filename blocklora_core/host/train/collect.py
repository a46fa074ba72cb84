"""Grams for concepts that carry none: each is applied alone, its prompts are sampled, its layers are watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import comfy.model_management
import comfy.utils
import torch
from torch import nn

from ...concept.concept import BlockLoRA, Stack
from ...concept.gram import EIGENPAIRS, Grams
from ...concept.prompt_lines import in_turn
from ...files.shown import called_by
from ...merge.methods.fused import lacks_grams, needs_grams
from ...merge.methods.sums import per_row
from ...training.grams import collect_grams
from ...training.port import AdaptedLayer, Conditioning
from ..comfy import ComfyClip, ComfyModel
from ..interrupt import cancellable
from ..page import tell
from ..text.layerwise import cross_attention_layers
from ..text.tokens import layers_of
from ..weights.autograd import training_mode
from ..weights.fixed import fixed_layers, modules_of
from ..weights.names import in_form, known_stem, weights_of
from ..weights.patching import resolve
from .port import ComfyPort, training_port


@dataclass(frozen=True)
class CollectJob:
    """What the node was given. Raises ValueError for numbers out of range.

    prompts: `{concept}` stands for what calls the concept; empty for PLAIN. pictures: sampled for each concept, prompts
    taken in turn. size: of a picture, in pixels. again: also where a concept has Grams.
    eigenpairs: kept of each Gram.
    """

    prompts: Sequence[str] = ()
    pictures: int = 4
    steps: int = 20
    size: int = 512
    seed: int = 0
    again: bool = False
    eigenpairs: int = EIGENPAIRS
    node_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("pictures", "steps", "size", "eigenpairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"Collect Grams: expected {name} of at least 1, got {getattr(self, name)}.")

    def prompts_of(self, lora: BlockLoRA) -> list[str]:
        """One prompt for each picture."""
        called = list(called_by(lora).values())
        prompts = [in_turn(self.prompts, words, self.pictures) for words in called]
        return [prompts[at % len(called)][at // len(called)] for at in range(self.pictures)]


@dataclass(frozen=True)
class Collected:
    """The stack with Grams. seconds: by concept, of those that were sampled. notes: what the user should know."""

    stack: Stack
    seconds: dict[str, float]
    notes: tuple[str, ...]


OnCollected = Callable[[int, BlockLoRA], None]
"""Called with a concept's place in the stack and the concept, as soon as it has its Grams."""


def collect(
    model: ComfyModel, clip: ComfyClip, stack: Stack, job: CollectJob, on_collected: OnCollected | None = None
) -> Collected:
    """The stack, in which each concept that needs Grams has those of `model` with that concept alone at strength 1.

    No weight is patched: the concept hangs on the model by hooks, which are gone however this ends. ValueError when a
    concept does not fit, InterruptProcessingException when the user cancels.
    """
    weights = weights_of(model, clip)
    stack = tuple(in_form(lora, weights) for lora in stack)
    due = [at for at, lora in enumerate(stack) if needs_grams(lora) and (job.again or lacks_grams(lora))]
    if not due:
        return Collected(stack, {}, ("Nothing to collect: every concept has its Grams.",))
    # All files are looked at before the first is sampled.
    resolved, unused = resolve(tuple(stack[at].with_strength(1.0) for at in due), model, clip)
    progress = _Progress(job, len(due))
    done, seconds, notes = list(stack), dict[str, float](), list[str]()
    with cancellable(), training_mode(), torch.no_grad(), training_port(model, clip, "all linear") as port:
        collector = _Collector(port, job)
        for at, fitting in zip(due, resolved, strict=True):
            started = time.perf_counter()
            grams = collector.grams(stack[at], fitting, progress.of(stack[at]))
            done[at] = replace(stack[at], grams=grams)
            seconds[stack[at].label] = time.perf_counter() - started
            if on_collected:
                on_collected(at, done[at])
            notes += _notes(stack[at], grams, unused)
    return Collected(tuple(done), seconds, tuple(notes))


def _notes(lora: BlockLoRA, grams: Grams, unused: dict[str, list[str]]) -> Iterator[str]:
    strange = unused.get(lora.label, [])
    if strange:
        yield f"{lora.label}: {len(strange)} layers are not in this model and get no Gram, e.g. {strange[0]}."
    idle = [name for name in needs_grams(lora) if grams.covers([name]) and not grams.of(name).trace]
    if idle:
        yield (
            f"{lora.label}: {len(idle)} layers were never asked while sampling, and a fused merge takes them as they "
            f"are, e.g. {idle[0]}."
        )


class _Progress:
    """Bar and line of text over all concepts; the place where a cancel is heard."""

    def __init__(self, job: CollectJob, concepts: int):
        self.job, self.concepts, self.begun = job, concepts, 0
        self.bar = comfy.utils.ProgressBar(concepts * job.steps, node_id=job.node_id)

    def of(self, lora: BlockLoRA) -> Callable[[int], None]:
        number, self.begun = self.begun, self.begun + 1

        def on_step(step: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            tell(self.job.node_id, f"{lora.concept.name}, {number + 1} of {self.concepts}: step {step}")
            self.bar.update_absolute(number * self.job.steps + step)

        return on_step


class _Collector:
    """One loaded model, asked about one concept after the other."""

    def __init__(self, port: ComfyPort, job: CollectJob):
        self.port, self.job = port, job
        self.modules = modules_of(port.model, port.clip)
        self.weights = weights_of(port.model, port.clip)

    def grams(self, lora: BlockLoRA, fitting: BlockLoRA, on_step: Callable[[int], None]) -> Grams:
        """lora: as its file names the layers; fitting: the same on the model's weights."""
        self._check_token(lora)
        (folded,) = per_row((fitting,))
        sides = [fixed_layers(folded, self.modules, text) for text in (False, True)]
        generator = torch.Generator().manual_seed(self.job.seed)
        shape = latent_shape(self.port.model, self.job.size)
        with sides[0].attached(), sides[1].attached():
            return collect_grams(
                self.port,
                self._watched(lora),
                encode=lambda: self._encode(lora),
                latent_shape=shape,
                steps=self.job.steps,
                generator=generator,
                on_step=on_step,
                eigenpairs=self.job.eigenpairs,
            )

    def _check_token(self, lora: BlockLoRA) -> None:
        layers, known = layers_of(lora.embeddings.values()), len(cross_attention_layers(self._network))
        if layers not in (1, known):
            raise ValueError(
                f"{lora.label}: expected a concept token for {known} layers, as this model has, got {layers}. "
                "The file was trained on another base: load that checkpoint."
            )

    @property
    def _network(self) -> nn.Module:
        network: nn.Module = self.port.model.model.diffusion_model
        return network

    def _watched(self, lora: BlockLoRA) -> dict[str, AdaptedLayer]:
        """The layers that need a Gram, by the file's names; pieces of a weight all look at the whole's input."""
        found = {}
        for stem in needs_grams(lora):
            known = known_stem(stem, self.weights)
            piece = self.weights.pieces.get(known)
            module = self.modules.get(self.weights.stems.get(known, piece.weight if piece else ""))
            layer = AdaptedLayer.of(module) if module is not None else None
            # Files may write a convolution as a matrix.
            if layer is not None and layer.convolution is None:
                found[stem] = layer
        return found

    def _encode(self, lora: BlockLoRA) -> Conditioning:
        prompts = self.job.prompts_of(lora)
        encoded = {text: self.port.encode(text, lora.concept.name, lora.embeddings) for text in dict.fromkeys(prompts)}
        return Conditioning.cat(list(encoded.values())).pick([list(encoded).index(text) for text in prompts])


def latent_shape(model: ComfyModel, size: int | tuple[int, int]) -> torch.Size:
    """(C, H, W), or (C, frames, H, W) with one frame, of MODEL's latents for a picture of `size` pixels: its height and
    width, or one number for a square."""
    form = model.model.latent_format
    ratio = getattr(form, "spacial_downscale_ratio", 8)
    sides = (size, size) if isinstance(size, int) else size
    return torch.Size(
        [form.latent_channels, *[1] * (form.latent_dimensions - 2), *(max(one // ratio, 1) for one in sides)]
    )
