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
