"""Do merged concepts keep their identity? Each is sampled alone and in merges, and the pictures are scored.

The protocol is Mix-of-Show's (arXiv 2305.18292), with class drift and the curve over the number merged of BlockLoRA
(arXiv 2503.08575). Alone and merged, and base and merged, share prompts and noise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import comfy.model_management
import torch
from torch import Tensor

from ...concept.concept import BlockLoRA, Stack
from ...concept.prompt_lines import PLACE, PLAIN, in_turn
from ...evaluation import (
    ConceptScores,
    Embedder,
    Evaluation,
    Judge,
    Measured,
    Reference,
    drifts,
    evaluation_prompt,
    reference_of,
)
from ...files.shown import trigger_words
from ...merge import DEFAULTS, Options, Overlap
from ..comfy import ComfyClip, ComfyModel, ComfyVae
from ..weights.patching import Applied, apply_merge
from .generate import Sampler, Sampling

PROMPTS = (
    f"a photo of {PLAIN}",
    f"{PLAIN} in front of a castle",
    f"{PLAIN} on a beach",
    f"{PLAIN} in the snow",
    f"{PLAIN} in a forest",
    f"{PLAIN} in a city street at night",
    f"{PLAIN} on a wooden floor",
    f"a close-up of {PLAIN}",
    f"an oil painting of {PLAIN}",
    f"a pencil drawing of {PLAIN}",
)
"""Of the kinds that Mix-of-Show tests with: plain, in other places, in other styles."""

SINGLE = "per_row"
"""How a concept is applied alone: at its own strength."""

Pictures = Mapping[str, Tensor]
"""Concept or class word -> (G, H, W, 3), uint8."""

_AT_ONCE = 16
"""Pictures that become floating-point numbers at a time."""

Base = tuple[ComfyModel, ComfyClip, ComfyVae]


@dataclass(frozen=True)
class EvaluateJob:
    """What to measure. Raises ValueError for numbers out of range.

    prompts: with `{concept}`; empty for PROMPTS. pictures: of each concept in each setting, prompts taken in turn.
    counts: how many concepts to merge; subsets are nested, in an order that the seed draws. drift: whether to sample
    the class words. method, overlap, options: as in `merge`.
    """

    prompts: Sequence[str] = ()
    pictures: int = 20
    counts: Sequence[int] = ()
    drift: bool = True
    method: str = "auto"
    overlap: Overlap = "error"
    options: Options = DEFAULTS
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise ValueError(f"Evaluate: expected at least one picture a concept, got {self.pictures}.")
        for line in self.lines:
            if PLACE not in line:
                raise ValueError(f"Evaluate: expected {PLACE} in every prompt, got {line!r}.")

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.prompts if line.strip()] or list(PROMPTS)

    def prompts_for(self, called: str) -> list[str]:
        """One for each picture."""
        return in_turn(self.lines, called, self.pictures)


@dataclass(frozen=True)
class Evaluated:
    """The figures, and the pictures of the largest merge, or of each concept alone where nothing was merged."""

    evaluation: Evaluation
    pictures: Pictures


class Watcher:
    """What a caller that shows progress overrides. A method that raises ends the evaluation; nothing stays patched."""

    def begin(self, pictures: int) -> None:
        """How many pictures will be sampled in all."""

    def setting(self, title: str) -> None:
        """What is sampled from now on."""

    def step(self, pictures: int) -> None:
        """So many pictures took a sampling step."""

    def done(self, pictures: Tensor) -> None:
        """(G, H, W, 3), uint8, just finished."""


def parse_counts(text: str, concepts: int) -> tuple[int, ...]:
    """Such as `1, 3, all` -> the numbers, rising, each once; at most `concepts`. ValueError for anything else."""
    found = set()
    for word in text.replace(",", " ").split():
        if word != "all" and not word.isdecimal():
            raise ValueError(f"Counts: expected numbers or all, such as 1, 3, all, got {word!r}.")
        found.add(concepts if word == "all" else int(word))
    _check_counts(sorted(found), concepts)
    return tuple(sorted(found))


def evaluate(
    base: Base,
    stack: Stack,
    references: Sequence[Reference],
    embedder: Embedder,
    job: EvaluateJob,
    watcher: Watcher | None = None,
) -> Evaluated:
    """Scores of `stack` on the base model. MODEL and CLIP are not touched: what is sampled are patched clones.

    ValueError for concepts of one name or without references, or where Merge gives one.
    InterruptProcessingException when the user cancels.
    """
    with torch.inference_mode():
        return _Run(base, stack, references, embedder, job, watcher or Watcher()).run()


@dataclass(frozen=True)
class _Subject:
    """A concept of the stack. called: what prompts call it."""

    lora: BlockLoRA
    called: str
    class_word: str

    @property
    def name(self) -> str:
        return self.lora.concept.name


def _subjects(stack: Stack, references: Sequence[Reference]) -> list[_Subject]:
    names = [lora.concept.name for lora in stack]
    twice = sorted({name for name in names if [other.casefold() for other in names].count(name.casefold()) > 1})
    if not stack or twice:
        got = f"several called {', '.join(twice)}" if twice else "an empty stack"
        raise ValueError(f"Evaluate: expected concepts with names of their own, got {got}.")
    return [
        _Subject(
            lora,
            trigger_words(lora) or lora.concept.name,
            reference_of(references, lora.concept.name).class_word or lora.concept.class_word,
        )
        for lora in stack
    ]


class _Run:
    """One evaluation: whatever is compared with several merges is sampled once."""

    def __init__(
        self, base: Base, stack: Stack, references: Sequence[Reference], embedder: Embedder, job: EvaluateJob,
        watcher: Watcher,
    ):  # fmt: skip
        self.base, self.job, self.watcher = base, job, watcher
        self.subjects = _subjects(stack, references)
        self.judge = Judge(embedder, references)
        order = Random(job.sampling.seed).sample(range(len(stack)), len(stack))
        # A merge of one is that concept alone.
        self.subsets = [[self.subjects[at] for at in sorted(order[:n])] for n in sorted(set(job.counts)) if n > 1]
        _check_counts(job.counts, len(stack))

    def run(self) -> Evaluated:
        self.watcher.begin(self._planned())
        alone, pictures = self._alone()
        base_seen = self._classes(self._sampler(*self.base[:2]), self.subsets[-1], "base") if self._drifting else {}
        merges = []
        for subset in self.subsets:
            measured, pictures = self._merged(subset, base_seen)
            merges.append(measured)
        base = self._bounds(base_seen) if base_seen else None
        notes = (*self._notes(), *self.judge.notes, *getattr(self.judge.embedder, "notes", ()))
        return Evaluated(Evaluation(self.judge.names, tuple(merges), alone, base, notes), pictures)

    @property
    def _drifting(self) -> bool:
        return self.job.drift and bool(self.subsets) and bool(_class_words(self.subsets[-1]))

    def _planned(self) -> int:
        """Pictures to sample."""
        drifting = [*self.subsets, self.subsets[-1]] if self._drifting else []
        kinds = len(self.subjects) + sum(map(len, self.subsets)) + sum(len(_class_words(one)) for one in drifting)
        return kinds * self.job.pictures

    def _alone(self) -> tuple[Measured, Pictures]:
        pictures = {}
        for subject in self.subjects:
            self.watcher.setting(f"{subject.name} alone")
            applied = self._apply([subject], SINGLE)
            pictures[subject.name] = self._sample(self._sampler(applied.model, applied.clip), subject.called)
        return Measured("each alone", self._scores(pictures), 1), pictures

    def _merged(self, subset: Sequence[_Subject], base_seen: Mapping[str, Tensor]) -> tuple[Measured, Pictures]:
        with _Cost(self.base) as cost:
            applied = self._apply(subset, self.job.method)
            _load(applied.model, applied.clip)
        sampler = self._sampler(applied.model, applied.clip)
        title = f"{len(subset)} merged by {applied.merged.method}"
        pictures = {}
        for subject in subset:
            self.watcher.setting(f"{title}, {subject.name}")
            pictures[subject.name] = self._sample(sampler, subject.called)
        seen = self._classes(sampler, subset, title) if base_seen else {}
        drift = {name: tuple(values) for name, values in self._drifts(subset, seen, base_seen).items()}
        return Measured(title, self._scores(pictures), len(subset), cost.seconds, cost.peak_bytes, drift), pictures

    def _apply(self, subset: Sequence[_Subject], method: str) -> Applied:
        model, clip, _ = self.base
        members = tuple(subject.lora for subject in subset)
        return apply_merge(members, model, clip, method, self.job.overlap, self.job.options)

    def _sampler(self, model: ComfyModel, clip: ComfyClip) -> Sampler:
        return Sampler(model, clip, self.base[2], self.job.sampling, self.watcher.step)

    def _sample(self, sampler: Sampler, called: str) -> Tensor:
        pictures = sampler.pictures(self.job.prompts_for(called))
        self.watcher.done(pictures)
        return pictures

    def _classes(self, sampler: Sampler, subset: Sequence[_Subject], title: str) -> dict[str, Tensor]:
        """Class word -> embeddings of its pictures by that model."""
        pictures = {}
        for word in _class_words(subset):
            self.watcher.setting(f"{title}, class word {word}")
            pictures[word] = self._sample(sampler, word)
        return {word: self._embed(found) for word, found in pictures.items()}

    def _drifts(
        self, subset: Sequence[_Subject], seen: Mapping[str, Tensor], base_seen: Mapping[str, Tensor]
    ) -> dict[str, list[float]]:
        words = {one.name: one.class_word for one in subset if one.class_word in seen}
        tuned, base = ({name: side[word] for name, word in words.items()} for side in (seen, base_seen))
        return drifts(tuned, base, self.judge.references)

    def _bounds(self, base_seen: Mapping[str, Tensor]) -> Measured:
        """The base's pictures of each concept's class word, scored as if they were the concept's."""
        scores = {
            one.name: self.judge.score(one.name, base_seen[one.class_word], self._texts(one))
            for one in self.subjects
            if one.class_word in base_seen
        }
        return Measured("base model, class words", scores, 0)

    def _scores(self, pictures: Pictures) -> dict[str, ConceptScores]:
        # All pictures of a setting are sampled before any is looked at: memory may not hold both models.
        return {
            one.name: self.judge.score(one.name, self._embed(pictures[one.name]), self._texts(one))
            for one in self.subjects
            if one.name in pictures
        }

    def _embed(self, pictures: Tensor) -> Tensor:
        return self.judge.embed(batch.float() / 255 for batch in pictures.split(_AT_ONCE))

    def _texts(self, subject: _Subject) -> list[str]:
        prompts = self.job.prompts_for(subject.called)
        return [evaluation_prompt(prompt, subject.called, subject.class_word) for prompt in prompts]

    def _notes(self) -> Iterator[str]:
        bare = [one.name for one in self.subjects if not one.class_word]
        if bare:
            yield f"No class word: {', '.join(bare)}. Their prompts are scored without one, and have no class drift."


def _check_counts(counts: Sequence[int], concepts: int) -> None:
    for number in counts:
        if not 1 <= number <= concepts:
            raise ValueError(f"Counts: expected 1 to {concepts}, the concepts in the stack, got {number}.")


def _class_words(subjects: Sequence[_Subject]) -> list[str]:
    return sorted({subject.class_word for subject in subjects if subject.class_word})


def _load(model: ComfyModel, clip: ComfyClip) -> None:
    comfy.model_management.load_models_gpu([model, clip.patcher])


class _Cost:
    """Seconds of a merge onto loaded models, and on CUDA the memory that it takes on top of them."""

    def __init__(self, base: Base):
        self.base, self.device = base, base[0].load_device
        self.seconds = 0.0
        self.peak_bytes: int | None = None

    def __enter__(self) -> _Cost:
        _load(*self.base[:2])
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_raised: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        self.seconds = time.perf_counter() - self._started
