"""Everything that decides what a training run learns, in one frozen value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..concept.rows import Scheme
from .adapters.orthogonal import SHARES
from .data.captions import CaptionRules
from .optimisation.optimizers import DEFAULT, OPTIMIZERS
from .optimisation.schedules import SCHEDULES
from .regularisers.erasure import Erasure
from .weighting import WEIGHTINGS

_POSITIVE = (
    "steps",
    "batch_size",
    "rank",
    "gram_pictures",
    "gram_steps",
    "preview_steps",
    "accumulation",
    "scheduler_cycles",
)
_NOT_NEGATIVE = (
    "preview_cfg",
    "warmup_steps",
    "max_grad_norm",
    "save_every",
    "preview_every",
    "niche_negatives",
    "niche_weight",
    "weight_decay",
    "noise_offset",
    "learning_rate",
    "embedding_learning_rate",
    "text_learning_rate",
    "prior_pictures",
    "prior_weight",
    "attention_weight",
)
TOKENS = ("single", "layer-wise", "none")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. Raises ValueError when one is out of range.

    steps, batch_size: optimiser steps, pictures a step.
    rank: r of B (rows, r) and A (r, n); scale is 1 (alpha = r), as in ED-LoRA.
    learning_rate: of A and B; embedding_learning_rate: of V_rand and V_class.
    optimizer: a key of OPTIMIZERS. prodigy finds the rate itself: both rates 1, or one of them 0. schedulefree averages
        the weights itself: scheduler constant, ema_decay 0.
    scheduler: a key of SCHEDULES, what becomes of both rates over the steps; warmup_steps: optimiser steps of linear
        warm-up before it; scheduler_cycles: cycles of cosine_restarts.
    accumulation: batches whose mean gradient makes one optimiser step.
    max_grad_norm: gradients are scaled down together to this global norm, 0 leaves them.
    ema_decay: previews, Grams and the result take an exponential moving average of the weights with this decay, 0 takes
        the weights themselves.
    weighting: a key of WEIGHTINGS, what each noise level counts; snr_gamma: of min_snr (Hang et al. 2023: 5).
    text_learning_rate: of A and B in the text encoders' layers of the same kind; 0 leaves the text encoders as they are
        (Mix-of-Show: a tenth of learning_rate). The text encoders then run at every step.
    token: what stands for the concept in prompts: "single", V_rand V_class; "layer-wise", a pair of its own for each
        cross-attention layer (ED-LoRA; SD1.5, SDXL); "none", its name as a trigger word.
    embedding_share: share of the steps, from the first on, in which V_rand and V_class learn; frozen afterwards, when
        prompts need encoding only once (pivotal tuning). 1 throughout, as in ED-LoRA; 0 leaves V_rand random.
    weight_decay: AdamW's, on A, B and the embeddings (Mix-of-Show: 0.01).
    embedding_norm_limit: embeddings freeze once their mean norm reaches it (Mix-of-Show: 0.55).
    erasure: Randomized Output Erasure (BlockLoRA Eq. 3).
    niche_weight: weight of the niche regularisation, 0 turns it off; niche_share: pictures of the batch that are
        repeated with a prompt that is not the concept's, at least one.
    niche_negatives: how many prompts with another random V_rand (with no token, another random word) to hold in store;
        niche_class_word: prompts with the class word in the concept's place too; niche_captions: and these.
    prior_pictures: pictures of the class word that the frozen model makes before the first step, for prior
        preservation; 0 for none. prior_weight: weight of their loss; prior_share: such pictures a step, as a share of
        the batch, at least one.
    attention_weight: of the attention regularisation (Mix-of-Show: 0.01), which needs masks; 0 turns it off.
    noise_offset: per-channel constant added to the noise (Mix-of-Show: 0.01).
    gram_pictures, gram_steps: pictures and sampler steps from which the concept's Grams are collected.
    captions: dropout, shuffled tags and templates, drawn anew at each use of a caption.
    save_every: steps between snapshots of LoRA and state, which the host writes; 0 for none.
    preview_every: steps between sample pictures, 0 for none; preview_steps, preview_cfg: how they are sampled.
    sample_prompt: what they show; empty for the concept alone.
    scheme, slot: whose rows learn. Without a scheme every row does: a plain LoRA, which belongs to no slot.
    orthogonal: A is frozen to rows of an orthogonal matrix that all concepts share (Orthogonal Adaptation, Po et al.
        2024): the slot's own share of them where there is a slot, else chosen at random by seed and concept.
    """

    steps: int = 300
    batch_size: int = 4
    rank: int = 4
    learning_rate: float = 1e-3
    embedding_learning_rate: float = 1e-3
    text_learning_rate: float = 0.0
    token: str = "single"
    embedding_share: float = 1.0
    weight_decay: float = 0.01
    embedding_norm_limit: float = 0.55
    erasure: Erasure = field(default_factory=Erasure)
    niche_weight: float = 3.0
    niche_share: float = 0.25
    niche_negatives: int = 12
    niche_class_word: bool = True
    niche_captions: tuple[str, ...] = ()
    prior_pictures: int = 0
    prior_weight: float = 1.0
    prior_share: float = 0.25
    attention_weight: float = 0.0
    noise_offset: float = 0.01
    captions: CaptionRules = field(default_factory=CaptionRules)
    gram_pictures: int = 4
    gram_steps: int = 20
    preview_every: int = 50
    preview_steps: int = 12
    preview_cfg: float = 4.0
    sample_prompt: str = ""
    optimizer: str = DEFAULT
    scheduler: str = "linear"
    warmup_steps: int = 0
    scheduler_cycles: int = 1
    accumulation: int = 1
    max_grad_norm: float = 0.0
    ema_decay: float = 0.0
    weighting: str = "plain"
    snr_gamma: float = 5.0
    save_every: int = 0
    seed: int = 0
    scheme: Scheme | None = field(default_factory=Scheme)
    slot: int | None = 0
    orthogonal: bool = False

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            self._at_least(name, 1)
        for name in _NOT_NEGATIVE:
            self._at_least(name, 0)
        for name in ("niche_share", "embedding_share", "prior_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)}.")
        for name, table in (
            ("optimizer", OPTIMIZERS),
            ("scheduler", SCHEDULES),
            ("weighting", WEIGHTINGS),
            ("token", TOKENS),
        ):
            self._among(name, table)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay: expected 0 or more and less than 1, got {self.ema_decay}.")
        if not self.snr_gamma > 0:
            raise ValueError(f"snr_gamma: expected more than 0, got {self.snr_gamma}.")
        if self.warmup_steps and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: expected fewer than the {self.steps} steps, got {self.warmup_steps}.")
        self._check_optimizer()
        self._check_slot()

    def _check_optimizer(self) -> None:
        kind, rates = OPTIMIZERS[self.optimizer], {"learning_rate", "embedding_learning_rate", "text_learning_rate"}
        given = {name: getattr(self, name) for name in sorted(rates)}
        if kind.one_rate and len({*given.values()} - {0.0}) != 1:
            listed = ", ".join(f"{name} {rate:g}" for name, rate in given.items())
            raise ValueError(
                f"{self.optimizer}: expected learning rates to be equal, best 1, or 0, as it finds them itself, got "
                f"{listed}."
            )
        if kind.averages and (self.scheduler != "constant" or self.ema_decay):
            raise ValueError(
                f"{self.optimizer}: expected scheduler constant and ema_decay 0, as it averages the weights itself, "
                f"got {self.scheduler} and {self.ema_decay:g}."
            )

    def _check_slot(self) -> None:
        if self.scheme is not None and self.slot is None:
            raise ValueError("slot: expected one of the scheme's, got none.")
        owner = self.scheme or (SHARES if self.orthogonal else None)
        if owner is not None and self.slot is not None:
            owner.check_slot(self.slot)

    def _among(self, name: str, known: Iterable[str]) -> None:
        if getattr(self, name) not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}.")

    def _at_least(self, name: str, least: int) -> None:
        if not getattr(self, name) >= least:
            raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}.")

    @property
    def embedding_steps(self) -> int:
        """Steps in which the concept's token learns."""
        return round(self.embedding_share * self.steps) if self.embedding_learning_rate else 0

    @property
    def niche_pictures(self) -> int:
        """Pictures of each batch that take part in the niche regularisation."""
        if self.niche_weight == 0 or self.niche_share == 0:
            return 0
        return max(1, round(self.niche_share * self.batch_size))

    @property
    def prior_batch(self) -> int:
        """Class pictures in each batch."""
        if self.prior_pictures == 0 or self.prior_weight == 0:
            return 0
        return max(1, round(self.prior_share * self.batch_size))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able settings, for the file and the report."""
        return asdict(self)


ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "row block": {},
    "plain LoRA": {"scheme": None, "slot": None},
    "orthogonal adaptation": {"scheme": None, "slot": None, "orthogonal": True},
}
"""What the Train node offers -> fields of TrainConfig. The first is the default."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings beyond the usual ones, by name: fields of TrainConfig and of its Erasure."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    erasure: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, config: TrainConfig) -> TrainConfig:
        """`config` with these settings. ValueError when they do not fit together."""
        fields = dict(self.fields)
        if config.scheme is None:
            # Every row learns: how rows would be dealt out does not matter.
            fields.pop("scheme", None)
        return replace(config, **fields, erasure=replace(config.erasure, **self.erasure))
