"""What the reader is asked about a figure, and the answers that each question has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demo.people.genes import COLOURS, Genes, Style, has_colour
from demo.people.scenes import GROUNDS

STYLE, GROUND = "style", "ground"
UNASKED = -1


@dataclass(frozen=True)
class Question:
    """style: the package whose figures alone are asked; empty for all."""

    gene: str
    answers: tuple[str, ...]
    style: str = ""

    @property
    def of_colour(self) -> bool:
        return self.gene in COLOURS or self.gene == GROUND

    def asks(self, style: str) -> bool:
        return self.style in ("", style)


def questions_of(styles: Sequence[Style], with_colours: bool = True) -> tuple[Question, ...]:
    """Style and ground, colours over all styles, each style's other genes by itself: their values are its own."""
    own = [
        Question(gene, tuple(values), style.package)
        for style in styles
        for gene, values in (style.identity | style.varying).items()
        if len(values) > 1
    ]
    shared = [Question(STYLE, tuple(style.package for style in styles)), Question(GROUND, tuple(GROUNDS))]
    shared += [
        Question(gene, tuple(colours))
        for gene, colours in COLOURS.items()
        if any(has_colour(style, gene) for style in styles)
    ]
    return tuple(question for question in (*shared, *own) if with_colours or not question.of_colour)


def labels_of(questions: Sequence[Question], style: str, genes: Genes, ground: str = "") -> list[int]:
    """A question's right answer, by its place; UNASKED where the figure does not show the gene."""
    shown: Mapping[str, str] = {STYLE: style, GROUND: ground, **genes}
    return [_place(question, shown) if question.asks(style) else UNASKED for question in questions]


def _place(question: Question, shown: Mapping[str, str]) -> int:
    answer = shown.get(question.gene, "")
    return question.answers.index(answer) if answer in question.answers else UNASKED
