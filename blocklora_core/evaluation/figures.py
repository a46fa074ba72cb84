"""What an evaluation found: scores picture by picture, and their means with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from .confusion import hits
from .intervals import Interval, bootstrap
from .retention import retention
from .scores import mean_alignment


@dataclass(frozen=True)
class ConceptScores:
    """Pictures of one concept, in their order. image: alignment with its references. text: alignment with the prompts;
    empty when it was not measured. found: the concepts that were recognised."""

    image: tuple[float, ...]
    text: tuple[float, ...]
    found: tuple[str, ...]

    @staticmethod
    def cat(parts: Sequence[ConceptScores]) -> ConceptScores:
        """Those of all pictures, in order."""
        return ConceptScores(
            image=tuple(value for part in parts for value in part.image),
            text=tuple(value for part in parts for value in part.text),
            found=tuple(value for part in parts for value in part.found),
        )


@dataclass(frozen=True)
class Measured:
    """Scores of the pictures of one model, or of each concept's own model.

    merged: how many concepts were in it; 0 for the base, None where it is not known. seconds, peak_bytes: of the merge,
    the second on top of the base and on CUDA only. drift: concept -> how much nearer each picture of its class word
    came to its references than the base's. runs: trainings of each concept, whose pictures follow each other, as many
    of each.
    """

    title: str
    concepts: Mapping[str, ConceptScores]
    merged: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    drift: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    runs: int = 1

    @staticmethod
    def join(parts: Sequence[Measured], names: Sequence[str]) -> Measured:
        """Of one model, each part with other concepts of `names`."""
        concepts = {name: scores for part in parts for name, scores in part.concepts.items()}
        drift = {name: values for part in parts for name, values in part.drift.items()}
        return replace(
            parts[0],
            concepts={name: concepts[name] for name in names if name in concepts},
            drift={name: drift[name] for name in names if name in drift},
        )

    @property
    def found(self) -> dict[str, tuple[str, ...]]:
        return {name: scores.found for name, scores in self.concepts.items()}

    @property
    def hits(self) -> dict[str, list[float]]:
        return hits(self.found)


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured together.

    names: all concepts that can be recognised. alone: each by itself; None when it was not measured. base: pictures of
    the class words by the base model, which bound text alignment from above and image alignment from below.
    """

    names: tuple[str, ...]
    merges: tuple[Measured, ...]
    alone: Measured | None = None
    base: Measured | None = None
    notes: tuple[str, ...] = ()

    @staticmethod
    def join(parts: Sequence[Evaluation]) -> Evaluation:
        """Of the same merges, each part with other concepts; the figures of a merge itself are the first part's."""
        first = parts[0]
        return Evaluation(
            first.names,
            tuple(Measured.join(same, first.names) for same in zip(*(part.merges for part in parts), strict=True)),
            _joined([part.alone for part in parts], first.names),
            _joined([part.base for part in parts], first.names),
            tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        )

    # Cached, as every form of the report asks and bootstraps take their time.
    @cached_property
    def summaries(self) -> tuple[tuple[Measured, Summary], ...]:
        """Of all that was measured; retention of the merges only."""
        apart = [(found, summarise(found, None)) for found in (self.base, self.alone) if found is not None]
        return (*apart, *((found, summarise(found, self.alone)) for found in self.merges))

    @property
    def largest(self) -> Measured | None:
        """The merge of most concepts."""
        return max(self.merges, key=lambda found: found.merged or 0, default=None)


@dataclass(frozen=True)
class Summary:
    """Means over concepts. image_kept, accuracy_kept: over what the same concepts have alone; None when alone was not
    measured or is 0. mean: of image and text alignment."""

    image: Interval
    text: Interval | None
    mean: float | None
    accuracy: Interval
    image_kept: Interval | None
    accuracy_kept: Interval | None
    drift: Interval | None


def _joined(parts: Sequence[Measured | None], names: Sequence[str]) -> Measured | None:
    there = [part for part in parts if part is not None]
    return Measured.join(there, names) if there else None


def with_notes(evaluation: Evaluation, notes: Iterable[str]) -> Evaluation:
    """The same with more notes."""
    return replace(evaluation, notes=(*evaluation.notes, *notes))


def summarise(measured: Measured, alone: Measured | None) -> Summary:
    """The means of `measured`. alone: what its retention is measured against, or None."""
    scores, resampled = measured.concepts.values(), partial(bootstrap, runs=measured.runs)
    image = resampled([one.image for one in scores])
    text = resampled([one.text for one in scores]) if all(one.text for one in scores) else None
    return Summary(
        image=image,
        text=text,
        mean=mean_alignment(image.mean, text.mean) if text else None,
        accuracy=resampled(list(measured.hits.values())),
        image_kept=_kept(measured, alone, lambda found: {name: one.image for name, one in found.concepts.items()}),
        accuracy_kept=_kept(measured, alone, lambda found: found.hits),
        drift=resampled(list(measured.drift.values())) if measured.drift else None,
    )


def _kept(
    measured: Measured,
    alone: Measured | None,
    scores: Callable[[Measured], Mapping[str, tuple[float, ...] | list[float]]],
) -> Interval | None:
    return None if alone is None else retention(scores(measured), scores(alone), runs=measured.runs)
