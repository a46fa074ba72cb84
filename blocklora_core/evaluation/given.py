"""Pictures that any graph made, whole or box by box (LoRA-Composer's protocol): what each shows, and its scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..concept.prompt_lines import in_turn
from .crops import SHORTER_SIDE, Box, crop
from .figures import ConceptScores, Evaluation, Measured
from .judge import Judge
from .references import Reference, reference_of
from .scores import PREFIX, in_class_words

TITLE = "given pictures"
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_BOX_FORM = "x, y, width, height, <concept>, prompt"


@dataclass(frozen=True)
class Annotation:
    """What is to be seen in a part of picture number `picture`, or of each where that is None."""

    concept: str
    prompt: str
    box: Box = WHOLE
    picture: int | None = None


def parse_boxes(text: str) -> list[Annotation]:
    """A box a line, `x, y, width, height, <concept>, prompt`, for each picture; the prompt may be left out.

    ValueError for a line of another form.
    """
    return [_box(line) for line in text.splitlines() if line.strip()]


def _box(line: str) -> Annotation:
    parts = [part.strip() for part in line.split(",", 5)]
    try:
        x, y, width, height = map(float, parts[:4])
        concept, prompt = parts[4], "".join(parts[5:])
        if not all(map(math.isfinite, (x, y, width, height))):
            raise ValueError
    except (ValueError, IndexError):
        raise ValueError(f"Boxes: expected {_BOX_FORM} in each line, got {line.strip()!r}.") from None
    return Annotation(concept, prompt, (x, y, width, height))


def whole_pictures(concepts: Sequence[str], prompts: Sequence[str], pictures: int) -> list[Annotation]:
    """What each whole picture shows: one concept and prompt for each, or one for all; no prompts for plain ones.

    Nothing without concepts. ValueError for other numbers.
    """
    if not concepts:
        return []
    names = _each("Concepts", concepts, pictures)
    texts = _each("Prompts", prompts, pictures) if prompts else [""] * pictures
    return [Annotation(name, text, picture=at) for at, (name, text) in enumerate(zip(names, texts, strict=True))]


def _each(what: str, given: Sequence[str], pictures: int) -> list[str]:
    if len(given) not in (1, pictures):
        raise ValueError(f"{what}: expected one line for each of the {pictures} pictures, or one, got {len(given)}.")
    return list(given) * (pictures if len(given) == 1 else 1)


def evaluate_pictures(
    pictures: Tensor, shown: Sequence[Annotation], references: Sequence[Reference], judge: Judge
) -> tuple[Evaluation, list[Tensor]]:
    """pictures: (B, H, W, 3) in [0, 1]. The figures, and what was scored, each (1, h, w, 3).

    ValueError when nothing is to be seen, or for a concept without references.
    """
    if not shown:
        raise ValueError("Evaluate Pictures: expected the concept that each picture shows, or boxes, got neither.")
    scores: dict[str, ConceptScores] = {}
    parts: list[Tensor] = []
    for one in shown:
        reference_of(references, one.concept)
        found = list(_parts(pictures, one))
        text = _text(one, references)
        new = judge.score(one.concept, judge.embed(found), [text] * len(found))
        scores[one.concept] = ConceptScores.cat([scores[one.concept], new]) if one.concept in scores else new
        parts += found
    return Evaluation(judge.names, (Measured(TITLE, scores),), notes=tuple(judge.notes)), parts


def _parts(pictures: Tensor, shown: Annotation) -> Iterator[Tensor]:
    chosen = pictures if shown.picture is None else pictures[shown.picture : shown.picture + 1]
    for picture in chosen:
        yield picture[None] if shown.box == WHOLE else crop(picture[None], shown.box)


def _text(shown: Annotation, references: Sequence[Reference]) -> str:
    """The prompt as it is scored: every concept that has references by its class word."""
    text = in_turn([shown.prompt], shown.concept, 1)[0]
    for reference in sorted(references, key=lambda one: -len(one.concept)):
        text = in_class_words(text, reference.concept, reference.class_word)
    return PREFIX + text


def as_seen(part: Tensor) -> Tensor:
    """(1, h, w, 3) as CLIP sees it: resized at its shorter side, its middle kept; (1, S, S, 3)."""
    whole = crop(part, WHOLE)
    top, left = ((side - SHORTER_SIDE) // 2 for side in whole.shape[1:3])
    return whole[:, top : top + SHORTER_SIDE, left : left + SHORTER_SIDE]
