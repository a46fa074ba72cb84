"""The papers' metrics: alignment, recognition, retention and drift, with intervals."""

from .confusion import accuracy, confusion, hits, nearest
from .crops import Box, crop
from .embedder import Embedder, NoTextError
from .intervals import Interval, bootstrap
from .retention import drift, retention
from .scores import PREFIX, evaluation_prompt, image_alignment, in_class_words, mean_alignment, text_alignment

__all__ = [
    "PREFIX",
    "Box",
    "Embedder",
    "Interval",
    "NoTextError",
    "accuracy",
    "bootstrap",
    "confusion",
    "crop",
    "drift",
    "evaluation_prompt",
    "hits",
    "image_alignment",
    "in_class_words",
    "mean_alignment",
    "nearest",
    "retention",
    "text_alignment",
]
