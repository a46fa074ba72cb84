"""What a training run makes small: errors on the concept's pictures, and the regularisations beside them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from ..concept.concept import Concept
from .adapters.trainable import AdapterSet
from .config import TrainConfig
from .data.dataset import Batch, Dataset
from .port import Port
from .prompts import ConceptPrompts, Negatives
from .regularisers.attention import AttentionRecorder
from .regularisers.prior import ClassPictures
from .terms import Passes, Term, term_losses
from .weighting import WEIGHTINGS


class BatchLoss(NamedTuple):
    """Losses of one batch: the weighted sum, with gradients; of the concept's pictures; of the niche regularisation."""

    total: Tensor
    pictures: float
    niche: float


class Objective:
    """The loss of a run's batches. `prepare` comes before the first of them, while the adapters are attached."""

    def __init__(
        self,
        *,
        port: Port,
        dataset: Dataset,
        concept: Concept,
        prompts: ConceptPrompts,
        adapters: AdapterSet,
        config: TrainConfig,
        generator: torch.Generator,
    ):
        self.port, self.dataset, self.concept, self.prompts = port, dataset, concept, prompts
        self.adapters, self.config, self.generator = adapters, config, generator
        self._recorder = self._make_recorder()
        self._negatives: Negatives | None = None
        self._prior: ClassPictures | None = None

    def _make_recorder(self) -> AttentionRecorder | None:
        if not self.config.attention.weight:
            return None
        for there, what, way in (
            (
                self.port.cross_attentions,
                "a U-Net with cross-attention, such as SD1.5 or SDXL",
                f"{self.port.base} has none",
            ),
            (self.prompts.token.embeddings(), "a concept token", "choose another token than none"),
            (self.dataset.has_masks, "masks", "connect them to Train"),
        ):
            if not there:
                raise ValueError(f"Attention regularisation: expected {what}, got none: {way}. Or set its weight to 0.")
        return AttentionRecorder(self.port.cross_attentions)

    def recording(self) -> AbstractContextManager[object]:
        """Where the losses are computed: with a hook on each cross-attention, if they are regularised."""
        return self._recorder.attached() if self._recorder else nullcontext()

    def prepare(self) -> None:
        """Draw the prompts and pictures that the regularisations need."""
        config, concept = self.config, self.concept
        with self.adapters.disabled():
            if config.niche_pictures:
                self._negatives = Negatives(
                    port=self.port,
                    captions=self.dataset.captions,
                    concept=concept,
                    token=self.prompts.token,
                    config=config.niche,
                    generator=self.generator,
                )
            if config.prior_batch:
                self._prior = ClassPictures.sample(
                    self.port,
                    concept.class_word,
                    config.prior.pictures,
                    shape=self.dataset.shape,
                    steps=config.grams.steps,
                    cfg=config.preview.cfg,
                    generator=self.generator,
                )

    def loss(self, batch: Batch) -> BatchLoss:
        own = self._own_term(batch)
        terms = [own, *self._niche_terms(own), *self._prior_terms()]
        with self._recorder.watching() if self._recorder else nullcontext():
            losses, passes = term_losses(self.port, terms, self._weights)
        total = sum((term.weight * loss for term, loss in zip(terms, losses, strict=True)), losses[0].new_zeros(()))
        if self._recorder:
            total = total + self.config.attention.weight * self._attention_loss(own, self._recorder, passes)
        return BatchLoss(total, losses[0].item(), losses[1].item() if self._negatives else 0.0)

    def _own_term(self, batch: Batch) -> Term:
        latents = batch.latents.to(self.port.device)
        noisy, sigma = self._noised(latents)
        return Term(noisy, sigma, self.prompts.encode(batch.captions), latents, masks=batch.masks)

    def _niche_terms(self, own: Term) -> list[Term]:
        """The same noisy pictures under prompts that are not the concept's, and what the frozen model sees in them."""
        if self._negatives is None:
            return []
        repeated = self.config.niche_pictures
        noisy, sigma = own.noisy[:repeated], own.sigma[:repeated]
        prompts = self._negatives.pick(repeated, self.generator)
        with self.adapters.disabled():
            target = self.port.predict(noisy, sigma, self._negatives.encode(prompts, live=False))
        return [
            Term(noisy, sigma, self._negatives.encode(prompts, self.prompts.live), target, self.config.niche.weight)
        ]

    def _prior_terms(self) -> list[Term]:
        if self._prior is None:
            return []
        latents = self._prior.pick(self.config.prior_batch, self.generator).to(self.port.device)
        noisy, sigma = self._noised(latents)
        prompts = self._prior.encode(len(latents), live=self.prompts.live)
        return [Term(noisy, sigma, prompts, latents, self.config.prior.weight)]

    def _attention_loss(self, own: Term, recorder: AttentionRecorder, passes: Passes) -> Tensor:
        masks = own.masks if own.masks is not None else torch.ones_like(own.noisy[:, :1])
        return recorder.loss(masks, own.prompts.concept_at, passes)

    def _noised(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(latents at a random noise level each, those levels)."""
        batch = latents.shape[0]
        at = torch.randint(len(self.port.sigmas), (batch,), generator=self.generator)
        noise = torch.randn(latents.shape, generator=self.generator)
        offset = torch.randn((*latents.shape[:2], *([1] * (latents.ndim - 2))), generator=self.generator)
        noise = noise + self.config.loss.noise_offset * offset
        sigma = self.port.sigmas[at].to(latents)
        return self.port.add_noise(latents, noise.to(latents), sigma), sigma

    def _weights(self, sigma: Tensor) -> Tensor:
        return WEIGHTINGS[self.config.loss.weighting](self.port, sigma, self.config.loss.snr_gamma)
