"""What each picture of `bench people` shows, by three judges that never saw its concepts. After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from benchmarks.identity_study.plan import Plan
from benchmarks.identity_study.results import references
from benchmarks.identity_study.work import Cell, Folders, PromptCase
from benchmarks.people.cast import Drawn
from benchmarks.people.scoring.book import ScoreBook, Seen
from blocklora_core.evaluation import Judge, evaluation_prompt
from demo.people.reader.alignment import stored_evaluator
from demo.people.reader.model import GeneReader
from demo.people.reader.reading import Reading
from demo.people.reader.stored import stored_reader

METRICS = {
    "image": "image alignment", "genes": "genes right", "shapes": "genes right, colour-blind",
    "recognised": "recognised", "by_genes": "recognised by genes", "text": "text alignment",
}  # fmt: skip
OF_PEOPLE = ("genes", "shapes", "by_genes")

Scores = dict[str, dict[str, list[float]]]
"""Metric -> concept -> a score for each picture; OF_PEOPLE has people alone."""


@dataclass(frozen=True)
class Scorer:
    """Scores what a plan's cells show; the pictures, or their scores in the book, must be there."""

    plan: Plan
    folders: Folders
    book: ScoreBook

    @cached_property
    def people(self) -> tuple[Drawn, ...]:
        return tuple(one for one in self.plan.members if isinstance(one, Drawn) and one.identity)

    @cached_property
    def judge(self) -> Judge:
        return Judge(stored_evaluator(), references(self.plan.members, self.folders))

    @cached_property
    def readers(self) -> Mapping[str, GeneReader]:
        return {"genes": stored_reader(), "shapes": stored_reader(colour_blind=True)}

    def unscored(self, cells: Iterable[Cell]) -> list[Cell]:
        return [cell for cell in cells if self.book.of(cell, self.folders) is None]

    def ready(self, cells: Iterable[Cell]) -> bool:
        return all(cell.path(self.folders).is_file() for cell in self.unscored(cells))

    def scores(self, runs: Sequence[Sequence[Cell]]) -> Scores:
        """The cells of each seed, a run each; pictures of a concept follow each other in this order."""
        found: Scores = {name: {} for name in METRICS}
        for cell in (cell for cells in runs for cell in cells):
            for name, seen in self._of(cell).items():
                for metric, values in seen.items():
                    found[metric].setdefault(name, []).extend(values)
        return found

    def _of(self, cell: Cell) -> Seen:
        """A cell serves several settings and figures; it is looked at once."""
        known = self.book.of(cell, self.folders)
        return self.book.put(cell, self.folders, self._look(cell)) if known is None else known

    def _look(self, cell: Cell) -> Seen:
        found: dict[str, dict[str, list[float]]] = {}
        for case, pictures in cell.pictures(self.folders):
            if not case.class_word:
                of_concept = found.setdefault(case.member.name, {})
                for metric, values in self._seen(case, pictures).items():
                    of_concept.setdefault(metric, []).extend(values)
        return found

    def _seen(self, case: PromptCase, pictures: Tensor) -> dict[str, list[float]]:
        """pictures: (N, H, W, 3) in 0..1."""
        name = case.member.name
        text = evaluation_prompt(case.prompt, name, case.member.class_word)
        scores = self.judge.score(name, self.judge.embed([pictures]), [text] * len(pictures))
        seen = {
            "image": list(scores.image), "text": list(scores.text),
            "recognised": [float(found == name) for found in scores.found],
        }  # fmt: skip
        place = next((at for at, one in enumerate(self.people) if one.name == name), None)
        return seen if place is None else seen | self._read(place, pictures)

    def _read(self, place: int, pictures: Tensor) -> dict[str, list[float]]:
        cast = [one.identity.trusted for one in self.people if one.identity]
        readings = {name: Reading.of(reader, pictures.movedim(-1, 1)) for name, reader in self.readers.items()}
        read = {name: reading.share_right(cast[place]).tolist() for name, reading in readings.items()}
        nearest = readings["genes"].nearest(cast)
        return read | {"by_genes": (nearest == place).float().tolist()}


def joined(parts: Sequence[Scores]) -> Scores:
    """Of casts that were merged apart."""
    return {metric: {name: values for part in parts for name, values in part[metric].items()} for metric in METRICS}
