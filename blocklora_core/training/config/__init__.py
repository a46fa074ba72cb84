"""What decides what a training run learns: nested settings, each with a flat name of its own in files and nodes."""

from .choices import ADAPTERS, AS_SET, PRESETS, TrainSettings
from .config import TrainConfig
from .sections import TOKENS

__all__ = ["ADAPTERS", "AS_SET", "PRESETS", "TOKENS", "TrainConfig", "TrainSettings"]
