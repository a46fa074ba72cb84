"""Training of one concept into its row block, on any model that a `Port` can speak for."""

from .config import ADAPTERS, AS_SET, PRESETS, TOKENS, TrainConfig, TrainSettings
from .data.dataset import Dataset, Example
from .loop import Progress, Trainer
from .port import AdaptedLayer, Conditioning, Port

__all__ = [
    "ADAPTERS",
    "AS_SET",
    "PRESETS",
    "TOKENS",
    "AdaptedLayer",
    "Conditioning",
    "Dataset",
    "Example",
    "Port",
    "Progress",
    "TrainConfig",
    "TrainSettings",
    "Trainer",
]
