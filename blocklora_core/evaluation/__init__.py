"""The papers' metrics: alignment, recognition, retention and drift, with intervals."""

from ..reports.evaluation.picture import evaluation_picture
from ..reports.evaluation.text import as_dict, table, text
from .confusion import accuracy, confusion, hits, nearest
from .crops import Box, crop
from .embedder import Embedder, NoTextError
from .figures import ConceptScores, Evaluation, Measured, Summary, summarise, with_notes
from .given import Annotation, as_seen, evaluate_pictures, parse_boxes, whole_pictures
from .intervals import Interval, bootstrap
from .judge import Judge
from .references import Reference, References, reference_of, with_reference
from .retention import drift, drifts, retention
from .scores import PREFIX, evaluation_prompt, image_alignment, in_class_words, mean_alignment, text_alignment

__all__ = [
    "PREFIX",
    "Annotation",
    "Box",
    "ConceptScores",
    "Embedder",
    "Evaluation",
    "Interval",
    "Judge",
    "Measured",
    "NoTextError",
    "Reference",
    "References",
    "Summary",
    "accuracy",
    "as_dict",
    "as_seen",
    "bootstrap",
    "confusion",
    "crop",
    "drift",
    "drifts",
    "evaluate_pictures",
    "evaluation_picture",
    "evaluation_prompt",
    "hits",
    "image_alignment",
    "in_class_words",
    "mean_alignment",
    "nearest",
    "parse_boxes",
    "reference_of",
    "retention",
    "summarise",
    "table",
    "text",
    "text_alignment",
    "whole_pictures",
    "with_notes",
    "with_reference",
]
