"""Everything that decides what a training run learns, in one frozen value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..erasure import Erasure
from ..rows import Scheme
from .captions import CaptionRules

_NOT_NEGATIVE = (
    "preview_every",
    "niche_negatives",
    "niche_weight",
    "weight_decay",
    "noise_offset",
    "learning_rate",
    "embedding_learning_rate",
)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. Raises ValueError when one is out of range.

    steps, batch_size: optimiser steps, pictures a step.
    rank: r of B (rows, r) and A (r, n); scale is 1 (alpha = r), as in ED-LoRA.
    learning_rate: of A and B; embedding_learning_rate: of V_rand and V_class. Linear decay to zero over the steps.
    embedding_share: share of the steps, from the first on, in which V_rand and V_class learn; frozen afterwards, when
        prompts need encoding only once (pivotal tuning). 1 throughout, as in ED-LoRA; 0 leaves V_rand random.
    weight_decay: AdamW's, on A, B and the embeddings (Mix-of-Show: 0.01).
    embedding_norm_limit: embeddings freeze once their mean norm reaches it (Mix-of-Show: 0.55).
    erasure: Randomized Output Erasure (BlockLoRA Eq. 3).
    niche_weight: weight of the niche regularisation, 0 turns it off; niche_share: pictures of the batch that are
        repeated with a prompt that is not the concept's, at least one.
    niche_negatives: how many prompts with another random V_rand to hold in store.
    noise_offset: per-channel constant added to the noise (Mix-of-Show: 0.01).
    gram_pictures, gram_steps: pictures and sampler steps from which the concept's Grams are collected.
    captions: dropout, shuffled tags and templates, drawn anew at each use of a caption.
    preview_every: steps between sample pictures, 0 for none; preview_steps, preview_cfg: how they are sampled.
    """

    steps: int = 300
    batch_size: int = 4
    rank: int = 4
    learning_rate: float = 1e-3
    embedding_learning_rate: float = 1e-3
    embedding_share: float = 1.0
    weight_decay: float = 0.01
    embedding_norm_limit: float = 0.55
    erasure: Erasure = field(default_factory=Erasure)
    niche_weight: float = 1.0
    niche_share: float = 0.25
    niche_negatives: int = 12
    noise_offset: float = 0.01
    captions: CaptionRules = field(default_factory=CaptionRules)
    gram_pictures: int = 4
    gram_steps: int = 20
    preview_every: int = 50
    preview_steps: int = 12
    preview_cfg: float = 4.0
    seed: int = 0
    scheme: Scheme = field(default_factory=Scheme)
    slot: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "rank", "gram_pictures", "gram_steps", "preview_steps"):
            self._at_least(name, 1)
        for name in _NOT_NEGATIVE:
            self._at_least(name, 0)
        for name in ("niche_share", "embedding_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)}.")
        self.scheme.check_slot(self.slot)

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

    def to_dict(self) -> dict[str, Any]:
        """JSON-able settings, for the file and the report."""
        return asdict(self)
