"""The training loop: one concept, its row block, its token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..grams import Grams
from ..lora import BlockLoRA, Concept
from ..metadata import rows_of
from ..rows import count
from .adapter import AdapterSet, RowBlockAdapter
from .config import TrainConfig
from .data import Dataset
from .fingerprint import collect_grams
from .learner import Learner
from .orthogonal import SharedBasis
from .port import Conditioning, Port
from .prompts import ConceptToken, Negatives, OwnPrompts
from .sampling import euler
from .weighting import WEIGHTINGS


class NonFiniteLossError(ValueError):
    """The loss or its gradient became NaN or infinite; what was learnt before that step is kept."""


@dataclass(frozen=True)
class Position:
    """Where the random draws of a run stand between two steps: the generator's state, the dataset's queues."""

    generator: Tensor
    queues: list[list[int]]


@dataclass(frozen=True)
class Progress:
    """What the callback gets after each optimiser step. sample: latents (1, C, H, W) when a preview is due."""

    step: int
    steps: int
    loss: float
    niche_loss: float
    losses: list[float] = field(repr=False)
    sample: Tensor | None = field(default=None, repr=False)


Callback = Callable[[Progress], None]


def _masked_mean(squared: Tensor, masks: Tensor | None) -> Tensor:
    """Mean over each picture (B, C, H, W), or over where its mask (B, 1, H, W) is: (B,)."""
    if masks is None:
        return squared.flatten(1).mean(1)
    masks = masks.to(squared).expand_as(squared)
    return (squared * masks).flatten(1).sum(1) / masks.flatten(1).sum(1)


class Trainer:
    """Holds the state of one run. `result()` is valid at any time, also after `run` was broken off."""

    def __init__(self, port: Port, dataset: Dataset, concept: Concept, config: TrainConfig):
        self.port, self.dataset, self.concept, self.config = port, dataset, concept, config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.losses: list[float] = []
        self.niche_losses: list[float] = []
        self.token = ConceptToken(port.class_embeddings(concept.class_word), self.generator, port.device)
        self.own = OwnPrompts(port, concept.name, self.token)
        self.adapters = AdapterSet(self._make_adapters(), config.erasure, self.generator)
        self.learner = Learner(self.adapters.parameters(), list(self.token.parameters()), config)
        self.position: Position | None = None
        self.negatives: Negatives | None = None
        self.grams: Grams | None = None

    def _make_adapters(self) -> dict[str, RowBlockAdapter]:
        made, rank, slot = {}, self.config.rank, self.config.slot
        basis = SharedBasis(slot, f"{self.config.seed} {self.concept.name}") if self.config.orthogonal else None
        for name, layer in self.port.layers.items():
            rows = rows_of(name, layer.out_features, self.config.scheme, slot)
            if count(rows):
                frozen = basis.down(name, layer, rank) if basis else None
                made[name] = RowBlockAdapter(layer, rows, rank, self.generator, self.port.device, frozen)
        if not made:
            raise ValueError("Layers to adapt: expected at least one with rows in this slot, got none.")
        return made

    def run(self, callback: Callback) -> None:
        """Train all steps, then collect the Grams. Whatever `callback` raises ends the run and is passed on."""
        with self.adapters.attached(self.port.layers):
            self.prepare()
            while len(self.losses) < self.config.steps:
                self._step()
                callback(self._progress())
            with self.learner.averaged():
                self.grams = self._collect_grams()

    def prepare(self) -> None:
        """Draw what a run needs before its first step; done once."""
        if self.position is not None:
            return
        if self.config.niche_pictures:
            self.negatives = Negatives(
                self.port, self.dataset.captions, self.concept.name, self.concept.class_word,
                self.config.niche_negatives, self.generator,
            )  # fmt: skip
        self.position = self._here()

    def freeze_token(self) -> None:
        """The token stays as it is, or as it is on average, from now on."""
        self.learner.settle(list(self.token.parameters()))
        self.own.freeze()

    def _here(self) -> Position:
        return Position(self.generator.get_state(), self.dataset.queues())

    def result(self) -> BlockLoRA:
        """The concept as learnt so far; its Grams are there once `run` has ended."""
        with self.learner.averaged():
            layers = {name: adapter.to_layer() for name, adapter in self.adapters.adapters.items()}
            embeddings = {name: value.detach().cpu().clone() for name, value in self.token.embeddings().items()}
        return BlockLoRA(
            concept=self.concept,
            layers=layers,
            scheme=self.config.scheme,
            slot=self.config.slot if self.config.scheme else None,
            base=self.port.base,
            embeddings=embeddings,
            grams=self.grams,
            training={**self.config.to_dict(), "steps_done": len(self.losses), "images": len(self.dataset)},
        )

    def _step(self) -> None:
        self._freeze_token_when_due()
        parts = [self._learn_batch() for _ in range(self.config.accumulation)]
        self._update()
        loss, niche = (sum(values) / len(parts) for values in zip(*parts, strict=True))
        self.losses.append(loss)
        self.niche_losses.append(niche)
        self.position = self._here()

    def _learn_batch(self) -> tuple[float, float]:
        """Add the gradients of one batch; its losses."""
        batch = self.dataset.batch(self.generator)
        latents = batch.latents.to(self.port.device)
        sigma, noise = self._noise(latents)
        noisy = self.port.add_noise(latents, noise, sigma)
        own = self.own.encode(batch.captions)
        repeated = self.config.niche_pictures
        others = self.negatives.pick(repeated, self.generator) if self.negatives else None
        target = self._frozen_prediction(noisy[:repeated], sigma[:repeated], others)
        with self.adapters.erasing():
            loss, niche = self._losses(latents, batch.masks, noisy, sigma, own, others, target)
            self._check_finite("Loss", loss.item() + niche.item())
            ((loss + self.config.niche_weight * niche) / self.config.accumulation).backward()
        return loss.item(), niche.item()

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"{what}: expected a number, got {value} at step {len(self.losses) + 1}. "
                f"Lower the learning rate (now {self.config.learning_rate:g})."
            )

    def _noise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        batch = latents.shape[0]
        at = torch.randint(len(self.port.sigmas), (batch,), generator=self.generator)
        noise = torch.randn(latents.shape, generator=self.generator)
        offset = torch.randn((*latents.shape[:2], *([1] * (latents.ndim - 2))), generator=self.generator)
        noise = noise + self.config.noise_offset * offset
        return self.port.sigmas[at].to(latents), noise.to(latents)

    def _frozen_prediction(self, noisy: Tensor, sigma: Tensor, others: Conditioning | None) -> Tensor | None:
        if others is None:
            return None
        with self.adapters.silent():
            return self.port.predict(noisy, sigma, others)

    def _losses(
        self,
        latents: Tensor,
        masks: Tensor | None,
        noisy: Tensor,
        sigma: Tensor,
        own: Conditioning,
        others: Conditioning | None,
        target: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Weighted mean squared errors: of the pictures, and from the frozen model off the concept."""
        batch = latents.shape[0]
        goal = latents
        if others is not None and target is not None:
            repeated = target.shape[0]
            noisy, sigma = torch.cat([noisy, noisy[:repeated]]), torch.cat([sigma, sigma[:repeated]])
            own, goal = Conditioning.cat([own, others]), torch.cat([latents, target])
        predicted = self.port.predict(noisy, sigma, own)
        squared = (predicted - goal).square()
        own_error = _masked_mean(squared[:batch], masks)
        error = torch.cat([own_error, squared[batch:].flatten(1).mean(1)]) * self._weights(sigma)
        niche = error[batch:].mean() if target is not None else error.new_zeros(())
        return error[:batch].mean(), niche

    def _freeze_token_when_due(self) -> None:
        learning = len(self.losses) < self.config.embedding_steps
        if not self.own.frozen and not (learning and self.token.mean_norm() < self.config.embedding_norm_limit):
            self.freeze_token()

    def _weights(self, sigma: Tensor) -> Tensor:
        return WEIGHTINGS[self.config.weighting](self.port, sigma, self.config.snr_gamma)

    def _update(self) -> None:
        self._check_finite("Gradient", self.learner.clip())
        self.learner.step(len(self.losses))

    def _progress(self) -> Progress:
        step, every = len(self.losses), self.config.preview_every
        due = every > 0 and (step % every == 0 or step == self.config.steps)
        return Progress(
            step,
            self.config.steps,
            self.losses[-1],
            self.niche_losses[-1],
            self.losses,
            self._preview() if due else None,
        )

    @torch.no_grad()
    def _preview(self) -> Tensor:
        with self.learner.averaged():
            return self._sample()

    def _sample(self) -> Tensor:
        prompt = self._own_prompts(1)
        negative = self.port.encode("", self.concept.name, {})
        # A generator of its own: looking at a sample must not change what is learnt.
        noise = torch.randn(
            (1, *self.dataset.examples[0].latents.shape),
            generator=torch.Generator().manual_seed(self.config.seed),
        )
        return euler(
            self.port,
            noise.to(self.port.device),
            prompt,
            self.config.preview_steps,
            self.config.preview_cfg,
            negative,
        )

    @torch.no_grad()
    def _own_prompts(self, pictures: int) -> Conditioning:
        captions = [f"a {self.concept.name}", *self.dataset.captions]
        chosen = [captions[number % len(captions)] for number in range(pictures)]
        return self.own.encode(chosen).detach()

    def _collect_grams(self) -> Grams | None:
        # A convolution's Gram would be over whole patches of its input, (n kh kw) squared: too large to keep.
        layers = {name: self.port.layers[name] for name in self.adapters.adapters}
        layers = {name: layer for name, layer in layers.items() if layer.convolution is None}
        if not layers:
            return None
        generator = torch.Generator().manual_seed(self.config.seed)
        return collect_grams(
            self.port, layers, self._own_prompts(self.config.gram_pictures),
            self.dataset.examples[0].latents.shape, self.config.gram_steps, generator,
        )  # fmt: skip
