"""The sections of TrainConfig, one a job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ...concept.rows import Scheme
from ..adapters.orthogonal import SHARES
from ..optimisation.optimizers import DEFAULT, OPTIMIZERS
from ..optimisation.schedules import SCHEDULES
from ..weighting import WEIGHTINGS
from .setting import DECAY, POSITIVE, SHARE, Section, at_least, one_of, setting

TOKENS = ("auto", "single", "layer-wise", "none")


@dataclass(frozen=True)
class AdapterConfig(Section):
    """What learns in a layer. Raises ValueError when scheme and slot do not fit together."""

    rank: int = setting(4, at_least(1))
    """r of B (rows, r) and A (r, n); scale is 1 (alpha = r), as in ED-LoRA."""
    scheme: Scheme | None = field(default_factory=Scheme)
    """How rows are dealt out. None: every row learns, a plain LoRA, which belongs to no slot."""
    slot: int | None = 0
    """Whose rows learn."""
    orthogonal: bool = False
    """A is frozen to rows of an orthogonal matrix that all concepts share (Orthogonal Adaptation, Po et al. 2024): the
    slot's own share of them where there is a slot, else chosen at random by seed and concept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheme is not None and self.slot is None:
            raise ValueError("slot: expected one of the scheme's, got none.")
        owner = self.scheme or (SHARES if self.orthogonal else None)
        if owner is not None and self.slot is not None:
            owner.check_slot(self.slot)


@dataclass(frozen=True)
class TokenConfig(Section):
    """The concept's token, V_rand V_class."""

    prefix: ClassVar[str] = "embedding_"

    kind: str = setting("auto", one_of(TOKENS), flat="token")
    """What stands for the concept in prompts: "single", V_rand V_class; "layer-wise", a pair of its own for each
    cross-attention layer (ED-LoRA; SD1.5, SDXL); "auto", layer-wise on models of SD1.5's kind, else single; "none",
    its name as a trigger word."""
    learning_rate: float = setting(1e-3, at_least(0))
    """Of V_rand and V_class."""
    share: float = setting(1.0, SHARE)
    """Share of the steps, from the first on, in which V_rand and V_class learn; frozen afterwards, when prompts need
    encoding only once (pivotal tuning). 1 throughout, as in ED-LoRA; 0 leaves V_rand random."""
    norm_limit: float = setting(2.0)
    """The embeddings freeze once their mean norm reaches it, for SD1.5's CLIP, whose words have about 0.4; where words
    are longer, it is longer in proportion. Mix-of-Show has 0.55, which stops a token before niche regularisation can
    bind the concept to it: docs/people.md."""


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """What turns gradients into weights."""

    name: str = setting(DEFAULT, one_of(OPTIMIZERS), flat="optimizer")
    """A key of OPTIMIZERS. prodigy finds the rate itself: all rates 1, or some of them 0. schedulefree averages the
    weights itself: scheduler constant, ema_decay 0."""
    learning_rate: float = setting(1e-3, at_least(0))
    """Of A and B."""
    text_learning_rate: float = setting(0.0, at_least(0))
    """Of A and B in the text encoders' layers of the same kind; 0 leaves the text encoders as they are (Mix-of-Show: a
    tenth of learning_rate). The text encoders then run at every step."""
    weight_decay: float = setting(0.01, at_least(0))
    """AdamW's, on A, B and the embeddings (Mix-of-Show: 0.01)."""
    accumulation: int = setting(1, at_least(1))
    """Batches whose mean gradient makes one optimiser step."""
    max_grad_norm: float = setting(0.0, at_least(0))
    """Gradients are scaled down together to this global norm, 0 leaves them."""
    ema_decay: float = setting(0.0, DECAY)
    """Previews, Grams and the result take an exponential moving average of the weights with this decay, 0 takes the
    weights themselves."""


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """What becomes of the learning rates over the steps."""

    name: str = setting("linear", one_of(SCHEDULES), flat="scheduler")
    """A key of SCHEDULES."""
    warmup_steps: int = setting(0, at_least(0))
    """Optimiser steps of linear warm-up before it."""
    cycles: int = setting(1, at_least(1), flat="scheduler_cycles")
    """Of cosine_restarts."""


@dataclass(frozen=True)
class LossConfig(Section):
    """The loss of the concept's own pictures."""

    weighting: str = setting("plain", one_of(WEIGHTINGS))
    """A key of WEIGHTINGS: what each noise level counts."""
    snr_gamma: float = setting(5.0, POSITIVE)
    """Of min_snr (Hang et al. 2023: 5)."""
    noise_offset: float = setting(0.01, at_least(0))
    """Per-channel constant added to the noise (Mix-of-Show: 0.01)."""


@dataclass(frozen=True)
class NicheConfig(Section):
    """The niche regularisation: silence on prompts that are not the concept's."""

    prefix: ClassVar[str] = "niche_"

    weight: float = setting(1.0, at_least(0))
    """In the loss; 0 turns it off."""
    share: float = setting(0.25, SHARE)
    """Pictures of the batch that are repeated with a prompt that is not the concept's, at least one."""
    negatives: int = setting(12, at_least(0))
    """How many prompts with another random V_rand (with no token, another random word) to hold in store."""
    class_word: bool = True
    """Prompts with the class word in the concept's place too."""
    captions: tuple[str, ...] = ()
    """And these."""


@dataclass(frozen=True)
class PriorConfig(Section):
    """Prior preservation."""

    prefix: ClassVar[str] = "prior_"

    pictures: int = setting(0, at_least(0))
    """Of the class word, that the frozen model makes before the first step; 0 for none."""
    weight: float = setting(1.0, at_least(0))
    """Of their loss."""
    share: float = setting(0.25, SHARE)
    """Such pictures a step, as a share of the batch, at least one."""


@dataclass(frozen=True)
class AttentionConfig(Section):
    """The attention regularisation, which needs masks."""

    prefix: ClassVar[str] = "attention_"

    weight: float = setting(0.0, at_least(0))
    """In the loss (Mix-of-Show: 0.01); 0 turns it off."""


@dataclass(frozen=True)
class GramConfig(Section):
    """The sampling from which the concept's Grams are collected."""

    prefix: ClassVar[str] = "gram_"

    pictures: int = setting(4, at_least(1))
    steps: int = setting(20, at_least(1))
    """Of the sampler."""


@dataclass(frozen=True)
class PreviewConfig(Section):
    """Sample pictures on the way."""

    prefix: ClassVar[str] = "preview_"

    every: int = setting(50, at_least(0))
    """Steps of the training between them; 0 for none."""
    steps: int = setting(12, at_least(1))
    """Of the sampler."""
    cfg: float = setting(4.0, at_least(0))
    """Guidance."""
    prompt: str = setting("", flat="sample_prompt")
    """What they show; empty for the concept alone."""
