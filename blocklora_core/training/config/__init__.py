"""What decides what a training run learns: nested settings, each with a flat name of its own in files and nodes."""

from .choices import ADAPTERS, TrainSettings
from .config import TrainConfig
from .sections import TOKENS

__all__ = ["ADAPTERS", "TOKENS", "TrainConfig", "TrainSettings"]
