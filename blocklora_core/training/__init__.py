"""Training of one concept into its row block, on any model that a `Port` can speak for."""

from .config import ADAPTERS, TrainConfig, TrainSettings
from .data import Dataset, Example
from .loop import Progress, Trainer
from .port import AdaptedLayer, Conditioning, Port

__all__ = [
    "ADAPTERS",
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
