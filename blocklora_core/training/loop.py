"""The training loop: one concept, its row block, its token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..concept.concept import BlockLoRA, Concept
from ..concept.gram import Grams
from ..concept.rows import count
from ..files.record import rows_of
from .adapters.orthogonal import SharedBasis
from .adapters.trainable import AdapterSet, RowBlockAdapter
from .config import TrainConfig
from .data.dataset import Dataset
from .grams import collect_grams
from .objective import Objective
from .optimisation.learner import Learner
from .optimisation.optimizers import Group
from .port import Conditioning, Port
from .prompts import ConceptPrompts, make_token
from .sampling import euler


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


class Trainer:
    """Holds the state of one run. `result()` is valid at any time, also after `run` was broken off."""

    def __init__(self, port: Port, dataset: Dataset, concept: Concept, config: TrainConfig):
        self.port, self.dataset, self.concept, self.config = port, dataset, concept, config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.losses: list[float] = []
        self.niche_losses: list[float] = []
        self.token = make_token(port, concept.class_word, config.token.kind, self.generator)
        self.text_learns = config.optimizer.text_learning_rate > 0
        self.prompts = ConceptPrompts(port, concept.name, self.token, live=self.text_learns)
        self.layers = {**port.layers, **(port.text_layers if self.text_learns else {})}
        self.adapters = AdapterSet(self._make_adapters(), config.erasure, self.generator)
        self.learner = Learner(self._groups(), config)
        self.objective = Objective(
            port=port,
            dataset=dataset,
            concept=concept,
            prompts=self.prompts,
            adapters=self.adapters,
            config=config,
            generator=self.generator,
        )
        self.position: Position | None = None
        self.grams: Grams | None = None
        self.enough = False
        """Set to true, `run` makes no further step, and ends as it does after the last."""

    def _make_adapters(self) -> dict[str, RowBlockAdapter]:
        made, rank, slot = {}, self.config.adapter.rank, self.config.adapter.slot
        basis = SharedBasis(slot, f"{self.config.seed} {self.concept.name}") if self.config.adapter.orthogonal else None
        for name, layer in self.layers.items():
            rows = rows_of(name, layer.out_features, self.config.adapter.scheme, slot, layer.parts)
            if count(rows):
                frozen = basis.down(name, layer, rank) if basis else None
                made[name] = RowBlockAdapter(
                    layer, rows, rank=rank, generator=self.generator, device=self.port.device, frozen=frozen
                )
        if not made:
            raise ValueError("Layers to adapt: expected at least one with rows in this slot, got none.")
        return made

    def _groups(self) -> list[Group]:
        def learnt(names: Iterable[str]) -> list[nn.Parameter]:
            held = [self.adapters.adapters[name] for name in names if name in self.adapters.adapters]
            return [parameter for adapter in held for parameter in adapter.parameters()]

        groups = [
            Group(learnt(self.port.layers), self.config.optimizer.learning_rate),
            Group(list(self.token.parameters()), self.config.token.learning_rate),
        ]
        if self.text_learns:
            groups.append(Group(learnt(self.port.text_layers), self.config.optimizer.text_learning_rate))
        return groups

    def run(self, callback: Callback) -> None:
        """Train all steps, or until there are enough, then collect the Grams.

        Whatever `callback` raises ends the run and is passed on.
        """
        with self.adapters.attached(self.layers), self.objective.recording():
            self.prepare()
            while not self.enough and len(self.losses) < self.config.steps:
                self._step()
                callback(self._progress())
            with self.learner.averaged():
                self.grams = self._collect_grams()

    def prepare(self) -> None:
        """Draw what a run needs before its first step; done once."""
        if self.position is not None:
            return
        self.objective.prepare()
        self.position = self._here()

    def freeze_token(self) -> None:
        """The token stays as it is, or as it is on average, from now on."""
        self.learner.freeze(list(self.token.parameters()))
        self.prompts.freeze()

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
            scheme=self.config.adapter.scheme,
            slot=self.config.adapter.slot if self.config.adapter.scheme else None,
            base=self.port.base,
            embeddings=embeddings,
            grams=self.grams,
            training={**self.config.to_dict(), "steps_done": len(self.losses), "images": len(self.dataset)},
        )

    def _step(self) -> None:
        self._freeze_token_when_due()
        self.prompts.keep(self._texts)
        parts = [self._learn_batch() for _ in range(self.config.optimizer.accumulation)]
        self._update()
        loss, niche = (sum(values) / len(parts) for values in zip(*parts, strict=True))
        self.losses.append(loss)
        self.niche_losses.append(niche)
        self.position = self._here()

    def _learn_batch(self) -> tuple[float, float]:
        """Add the gradients of one batch; its losses of the pictures and of the niche regularisation."""
        batch = self.dataset.batch(self.generator)
        # The masks of the erasure hold for all that a step computes: prompts, pictures, and both again when needed.
        with self.adapters.erasing():
            loss = self.objective.loss(batch)
            self._check_finite("Loss", loss.total.item())
            (loss.total / self.config.optimizer.accumulation).backward()
        return loss.pictures, loss.niche

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"{what}: expected a number, got {value} at step {len(self.losses) + 1}. "
                f"Lower the learning rate (now {self.config.optimizer.learning_rate:g})."
            )

    def _freeze_token_when_due(self) -> None:
        learning = len(self.losses) < self.config.embedding_steps
        if not self.prompts.frozen and not (learning and self.token.mean_norm() < self.config.token.norm_limit):
            self.freeze_token()

    def _update(self) -> None:
        self._check_finite("Gradient", self.learner.clip())
        # An error within the optimiser leaves weights between two steps: no state to go on from.
        self.position = None
        self.learner.step(len(self.losses))

    def _progress(self) -> Progress:
        step, every = len(self.losses), self.config.preview.every
        due = every > 0 and (step % every == 0 or step == self.config.steps)
        return Progress(
            step=step,
            steps=self.config.steps,
            loss=self.losses[-1],
            niche_loss=self.niche_losses[-1],
            losses=self.losses,
            sample=self._preview() if due else None,
        )

    @property
    def _texts(self) -> list[str] | None:
        """All prompts from here to the end of the run; None where there is no end of them."""
        texts, preview = self.dataset.texts, self.config.preview
        shown = [preview.prompt or self._own_captions[0], ""] if preview.every else []
        return None if texts is None else [*texts, *self._own_captions, *shown]

    @property
    def _own_captions(self) -> list[str]:
        return [f"a {self.concept.name}", *self.dataset.captions]

    @torch.no_grad()
    def _preview(self) -> Tensor:
        with self.learner.averaged():
            return self._sample()

    def _sample(self) -> Tensor:
        prompt = self._shown_prompt()
        negative = self.prompts.encode([""]).detach()
        # A generator of its own: looking at a sample must not change what is learnt.
        noise = torch.randn((1, *self.dataset.shape), generator=torch.Generator().manual_seed(self.config.seed))
        preview = self.config.preview
        return euler(
            self.port, noise.to(self.port.device), prompt, steps=preview.steps, cfg=preview.cfg, negative=negative
        )

    def _shown_prompt(self) -> Conditioning:
        text = self.config.preview.prompt
        return self.prompts.encode([text]).detach() if text else self._own_prompts(1)

    @torch.no_grad()
    def _own_prompts(self, pictures: int) -> Conditioning:
        captions = self._own_captions
        chosen = [captions[number % len(captions)] for number in range(pictures)]
        return self.prompts.encode(chosen).detach()

    def _collect_grams(self) -> Grams | None:
        # A convolution's Gram would be over whole patches of its input, (n kh kw) squared: too large to keep.
        layers = {name: self.layers[name] for name in self.adapters.adapters}
        layers = {name: layer for name, layer in layers.items() if layer.convolution is None}
        if not layers:
            return None
        generator = torch.Generator().manual_seed(self.config.seed)
        return collect_grams(
            self.port,
            layers,
            encode=lambda: self._own_prompts(self.config.grams.pictures),
            latent_shape=self.dataset.shape,
            steps=self.config.grams.steps,
            generator=generator,
        )
