"""What nodes offer of a TrainConfig: kinds of adapter, and settings beyond the usual ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .config import TrainConfig

ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "row block": {},
    "plain LoRA": {"scheme": None, "slot": None},
    "orthogonal adaptation": {"scheme": None, "slot": None, "orthogonal": True},
}
"""What the Train node offers -> settings of TrainConfig by flat name. The first is the default."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings beyond the usual ones: of TrainConfig by flat name, and of its Erasure."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    erasure: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, config: TrainConfig) -> TrainConfig:
        """`config` with these settings. ValueError when they do not fit together."""
        fields = dict(self.fields)
        if config.adapter.scheme is None:
            # Every row learns: how rows would be dealt out does not matter.
            fields.pop("scheme", None)
        return config.changed(**fields, erasure=replace(config.erasure, **self.erasure))


def _effort(steps: int, embedding_share: float, *, preview_every: int, grams: tuple[int, int]) -> Mapping[str, Any]:
    return {
        "steps": steps,
        "embedding_share": embedding_share,
        "preview_every": preview_every,
        "gram_pictures": grams[0],
        "gram_steps": grams[1],
    }


AS_SET = "as set"

PRESETS: Mapping[str, TrainSettings] = {
    AS_SET: TrainSettings(),
    "quick": TrainSettings(_effort(120, 0.5, preview_every=30, grams=(2, 12))),
    "standard": TrainSettings(_effort(300, 1.0, preview_every=50, grams=(4, 20))),
    "careful": TrainSettings(_effort(800, 1.0, preview_every=100, grams=(8, 20))),
}
"""How much work a training is -> the settings that say so, in place of those set by hand. Learning rates,
rank and the like are left as they are. "standard" is the default of each."""
