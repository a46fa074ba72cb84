"""From pictures to figures: what `bench identity` reports of each method. After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.identity_study.methods import RECIPES, Method
from benchmarks.identity_study.plan import Plan
from benchmarks.identity_study.subject import Subject
from benchmarks.identity_study.work import Cell, Folders, PromptCase
from blocklora_core.evaluation import (
    ConceptScores,
    Judge,
    Measured,
    Reference,
    confusion,
    drifts,
    evaluation_prompt,
    summarise,
)
from blocklora_core.host.train.progress import to_image
from demo.evaluator.model import DemoEvaluator

Figures = dict[str, Any]
Shown = Sequence[tuple[PromptCase, Tensor]]
"""What was asked for, with the embeddings of its pictures."""


def references(members: Iterable[Subject], folders: Folders) -> list[Reference]:
    """The pictures that were held out."""
    found = []
    for member in members:
        pictures = torch.cat([to_image(picture) for picture in member.held_out(folders.art)])
        found.append(Reference(member.name, member.class_word, (pictures,)))
    return found


@dataclass(frozen=True)
class Scorer:
    """Scores what a plan's cells show; the pictures must be there."""

    plan: Plan
    folders: Folders

    @cached_property
    def judge(self) -> Judge:
        return Judge(DemoEvaluator.load(), references(self.plan.members, self.folders))

    def ready(self, cells: Iterable[Cell]) -> bool:
        return all(cell.path(self.folders).is_file() for cell in cells)

    def measured(self, title: str, runs: Sequence[Sequence[Cell]], count: int) -> Measured:
        """The cells of each seed, a run each."""
        concepts: dict[str, list[ConceptScores]] = {}
        drifted: dict[str, list[float]] = {}
        for cells in runs:
            for cell in cells:
                for name, scores in self.scores(cell).items():
                    concepts.setdefault(name, []).append(scores)
                for name, values in self._drifts(cell, self._embedded(cell)).items():
                    drifted.setdefault(name, []).extend(values)
        ordered = {member.name: ConceptScores.cat(concepts[member.name]) for member in self.plan.members}
        drift = {name: tuple(values) for name, values in drifted.items()}
        return Measured(title, ordered, count, drift=drift, runs=len(runs))

    @cached_property
    def _seen(self) -> dict[Path, Shown]:
        return {}

    def _embedded(self, cell: Cell) -> Shown:
        """A cell serves several methods and figures; it is embedded once."""
        path = cell.path(self.folders)
        if path not in self._seen:
            self._seen[path] = [(case, self.judge.embed([shown])) for case, shown in cell.pictures(self.folders)]
        return self._seen[path]

    def scores(self, cell: Cell) -> dict[str, ConceptScores]:
        """Of each concept that the cell shows."""
        found: dict[str, list[ConceptScores]] = {}
        for case, embedded in self._embedded(cell):
            if not case.class_word:
                name, word = case.member.name, case.member.class_word
                texts = [evaluation_prompt(case.prompt, name, word)] * len(embedded)
                found.setdefault(name, []).append(self.judge.score(name, embedded, texts))
        return {name: ConceptScores.cat(scores) for name, scores in found.items()}

    @cached_property
    def _base(self) -> dict[str, Tensor]:
        """Prompt -> embeddings of the base's pictures."""
        return {case.prompt: embedded for case, embedded in self._embedded(self.plan.base)}

    def _drifts(self, cell: Cell, shown: Shown) -> dict[str, list[float]]:
        """How much nearer the class words' pictures came to each concept that was trained on that word."""
        classes = {case.prompt: embedded for case, embedded in shown if case.class_word}
        members = [training.member for training in cell.trained]
        prompts = {member.name: self.plan.class_case(member).prompt for member in members}
        tuned = {name: classes[prompt] for name, prompt in prompts.items() if prompt in classes}
        base = {name: self._base[prompts[name]] for name in tuned}
        return drifts(tuned, base, {name: self.judge.references[name] for name in tuned})

    def method(self, method: Method) -> Figures | None:
        """Figures alone and at each number merged; None when not all of it was sampled yet."""
        plan, recipe = self.plan, RECIPES[method.recipe]
        seeds = plan.seeds_of(method)
        alone = {seed: plan.alone(recipe, seed) for seed in seeds}
        merged = {
            count: [plan.merged(method, seed, count) for seed in seeds if count in plan.counts_of(method, seed)]
            for count in plan.counts_of(method, seeds[0])
        }
        everything = [*alone.values(), *(cells for runs in merged.values() for cells in runs)]
        if not self.ready(cell for cells in everything for cell in cells):
            return None
        single = self.measured("alone", list(alone.values()), 1)
        found: Figures = {"title": method.title, "recipe": method.recipe, "merge": method.merge.method}
        found |= {"seeds": list(seeds), "alone": _figures(single, None), "merged": {}}
        for count, runs in merged.items():
            # Only as many seeds as this number was sampled with.
            against = (
                single if len(runs) == len(seeds) else self.measured("alone", list(alone.values())[: len(runs)], 1)
            )
            found["merged"][str(count)] = _figures(self.measured("merged", runs, count), against)
        return found

    def confusion(self, method: Method) -> dict[str, list[float]]:
        """Concept -> the shares of its pictures taken for each, in the order of the members, all merged."""
        count = len(self.plan.members)
        runs = [self.plan.merged(method, seed, count) for seed in self.plan.seeds_of(method)]
        names = [member.name for member in self.plan.members]
        rows = confusion(self.measured("merged", runs, count).found, names)
        return {name: row.tolist() for name, row in zip(names, rows, strict=True)}

    def trusted(self) -> Figures:
        """How well the evaluator knows the concepts: training pictures, each by its nearest reference."""
        found = {}
        for member in self.plan.members:
            pictures = torch.cat([to_image(one) for one, _ in member.training(self.folders.art)])
            embedded = self.judge.embed([pictures])
            found[member.name] = self.judge.score(member.name, embedded, [member.class_word] * len(pictures))
        summary = summarise(Measured("training pictures", found), None)
        return {"image": summary.image.mean, "accuracy": summary.accuracy.mean}


def _figures(measured: Measured, alone: Measured | None) -> Figures:
    summary = summarise(measured, alone)
    found: Figures = {name: _plain(value) for name, value in vars(summary).items()}
    return found | {"by_concept": _by_concept(measured)}


def _plain(value: Any) -> Any:
    return rounded(value) if isinstance(value, tuple) else value


def rounded(values: Sequence[float]) -> list[float]:
    """As the JSON has them."""
    return [round(value, 5) for value in values]


def _by_concept(measured: Measured) -> dict[str, list[float]]:
    """Concept -> image alignment, share recognised."""
    return {
        name: [float(np.mean(scores.image)), float(np.mean(measured.hits[name]))]
        for name, scores in measured.concepts.items()
    }


def short(found: Mapping[str, Figures], count: int) -> dict[str, Figures]:
    """The last line's figures of each method."""
    return {name: _short(figures, str(count)) for name, figures in found.items()}


def _short(figures: Figures, count: str) -> Figures:
    alone, merged = figures["alone"], figures["merged"][count]
    return {
        "image_single": round(alone["image"][0], 4), "image_merged": round(merged["image"][0], 4),
        "retention": round(merged["image_kept"][0], 4), "accuracy_single": round(alone["accuracy"][0], 4),
        "accuracy_merged": round(merged["accuracy"][0], 4),
    }  # fmt: skip
