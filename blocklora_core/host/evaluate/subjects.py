"""The concepts of an evaluation, and what prompts call them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...concept.concept import BlockLoRA, Stack
from ...concept.names import fold
from ...evaluation import Reference, reference_of
from ...files.shown import trigger_words


@dataclass(frozen=True)
class Subject:
    """A concept of the stack. called: what prompts call it."""

    lora: BlockLoRA
    called: str
    class_word: str

    @property
    def name(self) -> str:
        return self.lora.concept.name


def subjects_of(stack: Stack, references: Sequence[Reference]) -> list[Subject]:
    """ValueError for an empty stack, concepts of one name, and one without references."""
    names = [lora.concept.name for lora in stack]
    twice = sorted({name for name in names if [fold(other) for other in names].count(fold(name)) > 1})
    if not stack or twice:
        got = f"several called {', '.join(twice)}" if twice else "an empty stack"
        raise ValueError(f"Evaluate: expected concepts with names of their own, got {got}.")
    return [
        Subject(
            lora,
            trigger_words(lora) or lora.concept.name,
            reference_of(references, lora.concept.name).class_word or lora.concept.class_word,
        )
        for lora in stack
    ]


def class_words(subjects: Sequence[Subject]) -> list[str]:
    return sorted({subject.class_word for subject in subjects if subject.class_word})
