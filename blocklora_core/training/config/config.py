"""Everything that decides what a training run learns, in one frozen value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ...concept.rows import Scheme
from ..data.captions import CaptionRules
from ..optimisation.optimizers import OPTIMIZERS
from ..regularisers.erasure import Erasure
from .sections import (
    AdapterConfig,
    AttentionConfig,
    GramConfig,
    LossConfig,
    NicheConfig,
    OptimizerConfig,
    PreviewConfig,
    PriorConfig,
    ScheduleConfig,
    TokenConfig,
)
from .setting import Section, at_least, setting, with_flat


@dataclass(frozen=True)
class TrainConfig(Section):
    """Settings of one training run. Raises ValueError when one is out of range, or two do not fit together.

    Files and nodes call a setting by its flat name, such as niche_weight for niche.weight: `of` makes a configuration
    from flat names, `changed` another one, `flat` and `to_dict` give them back.
    """

    steps: int = setting(300, at_least(1))
    """Of the optimiser."""
    batch_size: int = setting(4, at_least(1))
    """Pictures a step."""
    seed: int = 0
    save_every: int = setting(0, at_least(0))
    """Steps between snapshots of LoRA and state, which the host writes; 0 for none."""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    token: TokenConfig = field(default_factory=TokenConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    erasure: Erasure = field(default_factory=Erasure)
    """Randomized Output Erasure (BlockLoRA Eq. 3)."""
    niche: NicheConfig = field(default_factory=NicheConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    captions: CaptionRules = field(default_factory=CaptionRules)
    """Dropout, shuffled tags and templates, drawn anew at each use of a caption."""
    grams: GramConfig = field(default_factory=GramConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)

    @classmethod
    def of(cls, **flat: Any) -> TrainConfig:
        """The default configuration with these settings, by flat name. TypeError for a name that there is not."""
        return cls().changed(**flat)

    def changed(self, **flat: Any) -> TrainConfig:
        """This configuration with these settings in place of its own, by flat name; TypeError as in `of`."""
        unknown = flat.keys() - self.flat().keys()
        if unknown:
            raise TypeError(f"TrainConfig: expected settings it has, got {', '.join(sorted(unknown))}.")
        return with_flat(self, flat)

    def __post_init__(self) -> None:
        super().__post_init__()
        warmup = self.schedule.warmup_steps
        if warmup and warmup >= self.steps:
            raise ValueError(f"warmup_steps: expected fewer than the {self.steps} steps, got {warmup}.")
        kind = OPTIMIZERS[self.optimizer.name]
        if kind.one_rate:
            self._check_rates()
        if kind.averages and (self.schedule.name != "constant" or self.optimizer.ema_decay):
            raise ValueError(
                f"{self.optimizer.name}: expected scheduler constant and ema_decay 0, as it averages the weights "
                f"itself, got {self.schedule.name} and {self.optimizer.ema_decay:g}."
            )

    def _check_rates(self) -> None:
        rates = {
            "embedding_learning_rate": self.token.learning_rate,
            "learning_rate": self.optimizer.learning_rate,
            "text_learning_rate": self.optimizer.text_learning_rate,
        }
        if len({*rates.values()} - {0.0}) != 1:
            listed = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
            raise ValueError(
                f"{self.optimizer.name}: expected learning rates to be equal, best 1, or 0, as it finds them itself, "
                f"got {listed}."
            )

    @property
    def embedding_steps(self) -> int:
        """Steps in which the concept's token learns."""
        return round(self.token.share * self.steps) if self.token.learning_rate else 0

    @property
    def niche_pictures(self) -> int:
        """Pictures of each batch that take part in the niche regularisation."""
        if self.niche.weight == 0 or self.niche.share == 0:
            return 0
        return max(1, round(self.niche.share * self.batch_size))

    @property
    def prior_batch(self) -> int:
        """Class pictures in each batch."""
        if self.prior.pictures == 0 or self.prior.weight == 0:
            return 0
        return max(1, round(self.prior.share * self.batch_size))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able settings by flat name, for the file and the report."""
        return {name: _plain(value) for name, value in self.flat().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Scheme):
        return value.to_dict()
    return asdict(value) if isinstance(value, Erasure | CaptionRules) else value
