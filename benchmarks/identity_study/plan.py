"""Which merges `bench identity` samples, and what it asks of each. After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle, islice

import torch

from benchmarks.identity_study.methods import METHODS, RECIPES, Method
from benchmarks.identity_study.sample import SAMPLING, Merge
from benchmarks.identity_study.subject import Subject
from benchmarks.identity_study.train import Recipe, Training
from benchmarks.identity_study.work import Cell, PromptCase
from blocklora_core.concept.prompt_lines import PLACEHOLDER
from blocklora_core.host.evaluate.generate import Sampling

ALONE = Merge("per_row")
CLASS_SEED, CLASS_PICTURES = 500, 2


@dataclass(frozen=True)
class Plan:
    """members: the concepts. pictures: of each concept and setting. counts: numbers of concepts merged, from 2 on.
    seeds: of the trainings. sampling: of every picture. recipes: what methods call by name."""

    members: tuple[Subject, ...]
    pictures: int
    counts: tuple[int, ...]
    seeds: tuple[int, ...]
    methods: Mapping[str, Method] = field(default_factory=lambda: METHODS)
    sampling: Sampling = SAMPLING
    recipes: Mapping[str, Recipe] = field(default_factory=lambda: RECIPES)

    def seeds_of(self, method: Method) -> tuple[int, ...]:
        return self.seeds if method.seeds else self.seeds[:1]

    def counts_of(self, method: Method, seed: int) -> tuple[int, ...]:
        # What happens on the way to all is looked at with one seed.
        return self.counts if method.counts and seed == self.seeds[0] else (len(self.members),)

    def trainings(self, recipe: Recipe, seed: int) -> tuple[Training, ...]:
        return tuple(Training(recipe, member, seed, slot) for slot, member in enumerate(self.members))

    def cases(self, member: Subject) -> tuple[PromptCase, ...]:
        """Prompts in turn; each picture has noise of its own, the same for every method."""
        at = self.members.index(member)
        prompts = list(islice(cycle(member.prompts), self.pictures))
        return tuple(
            PromptCase(member, prompt.replace(PLACEHOLDER, member.name), (100 * at + number,))
            for number, prompt in enumerate(prompts)
        )

    def class_case(self, member: Subject) -> PromptCase:
        prompt = member.prompts[0].replace(PLACEHOLDER, member.class_word)
        seeds = tuple(CLASS_SEED + number for number in range(CLASS_PICTURES))
        return PromptCase(member, prompt, seeds, class_word=True)

    def class_cases(self, members: Sequence[Subject]) -> list[PromptCase]:
        """One for each class word, which all its concepts share."""
        return list({case.prompt: case for case in map(self.class_case, members)}.values())

    def _cell(self, trained: tuple[Training, ...], merge: Merge, cases: tuple[PromptCase, ...]) -> Cell:
        return Cell(trained, merge, cases, self.sampling)

    @cached_property
    def base(self) -> Cell:
        return self._cell((), ALONE, tuple(self.class_cases(self.members)))

    def alone(self, recipe: Recipe, seed: int) -> list[Cell]:
        return [self._cell((one,), ALONE, self.cases(one.member)) for one in self.trainings(recipe, seed)]

    def merged(self, method: Method, seed: int, count: int) -> list[Cell]:
        """Merges of `count` concepts, in one of which each concept is sampled."""
        trainings = self.trainings(self.recipes[method.recipe], seed)
        if count == len(trainings):
            return [self._all(trainings, method)]
        cells, seen = [], set[int]()
        for group in groups(len(trainings), count):
            chosen = tuple(trainings[at] for at in sorted(group))
            new = [trainings[at].member for at in sorted(set(group) - seen)]
            seen |= set(group)
            cells.append(self._cell(chosen, method.merge, tuple(one for member in new for one in self.cases(member))))
        return cells

    def _all(self, trainings: tuple[Training, ...], method: Method) -> Cell:
        cases = [one for member in self.members for one in self.cases(member)]
        return self._cell(trainings, method.merge, (*cases, *(self.class_cases(self.members) if method.counts else ())))

    def cells(self) -> Iterator[Cell]:
        """Everything, what matters most first."""
        yield self.base
        for seed in self.seeds:
            for method in self.methods.values():
                if seed in self.seeds_of(method):
                    yield from self.alone(self.recipes[method.recipe], seed)
                    for count in self.counts_of(method, seed):
                        yield from self.merged(method, seed, count)


def groups(count: int, size: int) -> list[list[int]]:
    """Groups of `size` out of `count`, in which each occurs at least once: a shuffled round, begun anew at its end."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(size)).tolist()
    around = cycle(order)
    return [[next(around) for _ in range(size)] for _ in range(-(-count // size))]
