"""The training loop: one concept, its row block, its token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..grams import Grams
from ..keys import parts
from ..lora import BlockLoRA, Concept
from ..rows import count
from .adapter import AdapterSet, RowBlockAdapter
from .config import TrainConfig
from .data import Dataset
from .fingerprint import collect_grams
from .port import Conditioning, Port
from .prompts import ConceptToken, Negatives, OwnPrompts
from .sampling import euler


class NonFiniteLossError(ValueError):
    """The loss became NaN or infinite; what was learnt before that step is kept."""


@dataclass(frozen=True)
class Progress:
    """What the callback gets after each step. sample: latents (1, C, H, W) when a preview is due."""

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
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.adapters.parameters(), "lr": config.learning_rate},
                {"params": list(self.token.parameters()), "lr": config.embedding_learning_rate},
            ],
            weight_decay=config.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 - step / config.steps)
        self.negatives: Negatives | None = None
        self.grams: Grams | None = None

    def _make_adapters(self) -> dict[str, RowBlockAdapter]:
        made = {}
        for name, layer in self.port.layers.items():
            rows = self.config.scheme.rows(self.config.slot, layer.out_features, parts(name))
            if count(rows):
                made[name] = RowBlockAdapter(layer, rows, self.config.rank, self.generator, self.port.device)
        if not made:
            raise ValueError("Layers to adapt: expected at least one with rows in this slot, got none.")
        return made

    def run(self, callback: Callback) -> None:
        """Train all steps, then collect the Grams. Whatever `callback` raises ends the run and is passed on."""
        with self.adapters.attached(self.port.layers):
            if self.config.niche_pictures:
                self.negatives = Negatives(
                    self.port, self.dataset.captions, self.concept.name, self.concept.class_word,
                    self.config.niche_negatives, self.generator,
                )  # fmt: skip
            while len(self.losses) < self.config.steps:
                self._step()
                callback(self._progress())
            self.grams = self._collect_grams()

    def result(self) -> BlockLoRA:
        """The concept as learnt so far; its Grams are there once `run` has ended."""
        training = {**self.config.to_dict(), "steps_done": len(self.losses), "images": len(self.dataset)}
        return BlockLoRA(
            concept=self.concept,
            layers={name: adapter.to_layer() for name, adapter in self.adapters.adapters.items()},
            scheme=self.config.scheme,
            slot=self.config.slot,
            base=self.port.base,
            embeddings={name: value.detach().cpu().clone() for name, value in self.token.embeddings().items()},
            grams=self.grams,
            training=training,
        )

    def _step(self) -> None:
        batch = self.dataset.batch(self.generator)
        latents = batch.latents.to(self.port.device)
        sigma, noise = self._noise(latents)
        noisy = self.port.add_noise(latents, noise, sigma)
        self._freeze_token_when_due()
        own = self.own.encode(batch.captions)
        repeated = self.config.niche_pictures
        others = self.negatives.pick(repeated, self.generator) if self.negatives else None
        target = self._frozen_prediction(noisy[:repeated], sigma[:repeated], others)
        with self.adapters.erasing():
            loss, niche = self._losses(latents, batch.masks, noisy, sigma, own, others, target)
            if not math.isfinite(loss.item() + niche.item()):
                raise NonFiniteLossError(
                    f"Loss: expected a number, got {loss.item()} at step {len(self.losses) + 1}. "
                    f"Lower the learning rate (now {self.config.learning_rate:g})."
                )
            (loss + self.config.niche_weight * niche).backward()
        self._update()
        self.losses.append(loss.item())
        self.niche_losses.append(niche.item())

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
        """Mean squared errors of the model's own output: of the pictures, and from the frozen model off the concept."""
        batch = latents.shape[0]
        goal = latents
        if others is not None and target is not None:
            repeated = target.shape[0]
            noisy, sigma = torch.cat([noisy, noisy[:repeated]]), torch.cat([sigma, sigma[:repeated]])
            own, goal = Conditioning.cat([own, others]), torch.cat([latents, target])
        predicted = self.port.predict(noisy, sigma, own)
        squared = (predicted - goal).square()
        own_error = _masked_mean(squared[:batch], masks)
        error = torch.cat([own_error, squared[batch:].flatten(1).mean(1)]) * self.port.loss_scale(sigma).square()
        niche = error[batch:].mean() if target is not None else error.new_zeros(())
        return error[:batch].mean(), niche

    def _freeze_token_when_due(self) -> None:
        learning = len(self.losses) < self.config.embedding_steps
        if not self.own.frozen and not (learning and self.token.mean_norm() < self.config.embedding_norm_limit):
            self.own.freeze()

    def _update(self) -> None:
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)

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

    def _collect_grams(self) -> Grams:
        layers = {name: self.port.layers[name] for name in self.adapters.adapters}
        generator = torch.Generator().manual_seed(self.config.seed)
        return collect_grams(
            self.port, layers, self._own_prompts(self.config.gram_pictures),
            self.dataset.examples[0].latents.shape, self.config.gram_steps, generator,
        )  # fmt: skip
