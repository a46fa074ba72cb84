"""Image and text alignment as Mix-of-Show measures them (arXiv 2305.18292), whose numbers BlockLoRA's tables continue.

All embeddings are of unit length, so that products are cosines.
"""

from __future__ import annotations

import re

from torch import Tensor

PREFIX = "A photo depicts "
"""Ahead of every prompt that is scored: CLIPScore's (arXiv 2104.08718)."""

TEXT_WEIGHT = 2.5
"""CLIPScore's w, which stretches cosines of a text and a picture to about 0 to 1."""


def image_alignment(generated: Tensor, references: Tensor) -> Tensor:
    """(G, D) pictures, (R, D) references -> (G,): each one's mean over the references of max(cos, 0)."""
    _check(generated, references, "references")
    return (generated @ references.T).clamp(min=0).mean(1)


def text_alignment(generated: Tensor, texts: Tensor) -> Tensor:
    """(G, D) pictures, (G, D) or (1, D) texts -> (G,): 2.5 max(cos, 0), each with its own text or all with the one."""
    _check(generated, texts, "texts")
    if len(texts) not in (1, len(generated)):
        raise ValueError(f"Texts: expected one for each of the {len(generated)} pictures or one, got {len(texts)}.")
    return TEXT_WEIGHT * (generated * texts).sum(1).clamp(min=0)


def mean_alignment(image: float, text: float) -> float:
    """The papers' third column: the mean of both alignments."""
    return (image + text) / 2


def evaluation_prompt(prompt: str, concept: str, class_word: str) -> str:
    """`prompt` as it is scored: the prefix, and the class word in place of the concept."""
    return PREFIX + in_class_words(prompt, concept, class_word)


def in_class_words(prompt: str, concept: str, class_word: str) -> str:
    """`prompt` with the class word in place of the concept, or of the concept and the class word after it.

    Only the whole word is the concept, in any case. Without a class word the concept is left out.
    """
    name = rf"(?<!\w){re.escape(concept)}(?!\w)"
    after = rf"(?:\s+{re.escape(class_word)}(?!\w))?" if class_word else ""
    return re.sub(r"\s+", " ", re.sub(name + after, lambda _: class_word, prompt, flags=re.IGNORECASE)).strip()


def _check(generated: Tensor, others: Tensor, what: str) -> None:
    if generated.ndim != 2 or others.ndim != 2 or generated.shape[1] != others.shape[1] or not len(others):
        raise ValueError(
            f"Expected embeddings of one width of pictures and at least one of {what}, "
            f"got {tuple(generated.shape)} and {tuple(others.shape)}."
        )
