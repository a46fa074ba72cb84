"""Do merged concepts keep their identity? Each is sampled alone and in merges, and the pictures are scored.

The protocol is Mix-of-Show's (arXiv 2305.18292), with class drift and the curve over the number merged of BlockLoRA
(arXiv 2503.08575). Alone and merged, and base and merged, share prompts and noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from ...concept.concept import Stack
from ...evaluation import ConceptScores, Embedder, Evaluation, Judge, Measured, Reference, drifts, evaluation_prompt
from ..comfy import ComfyClip, ComfyModel
from ..weights.patching import Applied, apply_merge
from .cost import Base, MergeCost, load
from .generate import Sampler
from .job import EvaluateJob, check_counts
from .progress import EvaluateCallback
from .subjects import Subject, class_words, subjects_of

SINGLE = "per_row"
"""How a concept is applied alone: at its own strength."""

Pictures = Mapping[str, Tensor]
"""Concept or class word -> (G, H, W, 3), uint8."""

_AT_ONCE = 16
"""Pictures that become floating-point numbers at a time."""


@dataclass(frozen=True)
class Evaluated:
    """The figures, and the pictures of the largest merge, or of each concept alone where nothing was merged."""

    evaluation: Evaluation
    pictures: Pictures


def evaluate(
    base: Base,
    stack: Stack,
    references: Sequence[Reference],
    embedder: Embedder,
    job: EvaluateJob,
    callback: EvaluateCallback | None = None,
) -> Evaluated:
    """Scores of `stack` on the base model. MODEL and CLIP are not touched: what is sampled are patched clones.

    ValueError for concepts of one name or without references, or where Merge gives one.
    InterruptProcessingException when the user cancels.
    """
    with torch.inference_mode():
        return _Run(
            base=base,
            stack=stack,
            references=references,
            embedder=embedder,
            job=job,
            callback=callback or EvaluateCallback(),
        ).run()


class _Run:
    """One evaluation: whatever is compared with several merges is sampled once."""

    def __init__(
        self,
        *,
        base: Base,
        stack: Stack,
        references: Sequence[Reference],
        embedder: Embedder,
        job: EvaluateJob,
        callback: EvaluateCallback,
    ):
        self.base, self.job, self.callback = base, job, callback
        self.subjects = subjects_of(stack, references)
        self.judge = Judge(embedder, references)
        order = Random(job.sampling.seed).sample(range(len(stack)), len(stack))
        # A merge of one is that concept alone.
        self.subsets = [[self.subjects[at] for at in sorted(order[:n])] for n in sorted(set(job.counts)) if n > 1]
        check_counts(job.counts, len(stack))

    def run(self) -> Evaluated:
        self.callback.begin(self._planned())
        alone, pictures = self._alone()
        base_seen = self._classes(self._sampler(*self.base[:2]), self._last, "base") if self._drifting else {}
        merges = []
        for subset in self.subsets:
            measured, pictures = self._merged(subset, base_seen)
            merges.append(measured)
        base = self._bounds(base_seen) if base_seen else None
        notes = (*self._notes(), *self.judge.notes, *getattr(self.judge.embedder, "notes", ()))
        return Evaluated(Evaluation(self.judge.names, tuple(merges), alone, base, notes), pictures)

    @property
    def _drifting(self) -> bool:
        return self.job.drift and bool(self.subsets) and bool(class_words(self._last))

    @property
    def _last(self) -> list[Subject]:
        return self._seen(self.subsets[-1])

    def _seen(self, subset: Sequence[Subject]) -> list[Subject]:
        """Those whose pictures are sampled."""
        return [one for one in subset if not self.job.names or one.name in self.job.names]

    def _planned(self) -> int:
        """Pictures to sample."""
        subsets = [self._seen(subset) for subset in self.subsets]
        drifting = [*subsets, subsets[-1]] if self._drifting else []
        kinds = len(self._seen(self.subjects)) + sum(map(len, subsets)) + sum(len(class_words(one)) for one in drifting)
        return kinds * self.job.pictures

    def _alone(self) -> tuple[Measured, Pictures]:
        pictures = {}
        for subject in self._seen(self.subjects):
            self.callback.setting(f"{subject.name} alone")
            applied = self._apply([subject], SINGLE)
            pictures[subject.name] = self._sample(self._sampler(applied.model, applied.clip), subject.called)
        return Measured("each alone", self._scores(pictures), 1), pictures

    def _merged(self, subset: Sequence[Subject], base_seen: Mapping[str, Tensor]) -> tuple[Measured, Pictures]:
        with MergeCost(self.base) as cost:
            applied = self._apply(subset, self.job.method)
            load(applied.model, applied.clip)
        sampler = self._sampler(applied.model, applied.clip)
        title = f"{len(subset)} merged by {applied.merged.method}"
        pictures = {}
        for subject in self._seen(subset):
            self.callback.setting(f"{title}, {subject.name}")
            pictures[subject.name] = self._sample(sampler, subject.called)
        seen = self._classes(sampler, self._seen(subset), title) if base_seen else {}
        drift = {name: tuple(values) for name, values in self._drifts(self._seen(subset), seen, base_seen).items()}
        return Measured(
            title,
            concepts=self._scores(pictures),
            merged=len(subset),
            seconds=cost.seconds,
            peak_bytes=cost.peak_bytes,
            drift=drift,
        ), pictures

    def _apply(self, subset: Sequence[Subject], method: str) -> Applied:
        model, clip, _ = self.base
        members = tuple(subject.lora for subject in subset)
        return apply_merge(members, model, clip, method=method, overlap=self.job.overlap, options=self.job.options)

    def _sampler(self, model: ComfyModel, clip: ComfyClip) -> Sampler:
        return Sampler(model, clip, self.base[2], self.job.sampling, self.callback.step)

    def _sample(self, sampler: Sampler, called: str) -> Tensor:
        pictures = sampler.pictures(self.job.prompts_for(called))
        self.callback.done(pictures)
        return pictures

    def _classes(self, sampler: Sampler, subset: Sequence[Subject], title: str) -> dict[str, Tensor]:
        """Class word -> embeddings of its pictures by that model."""
        pictures = {}
        for word in class_words(subset):
            self.callback.setting(f"{title}, class word {word}")
            pictures[word] = self._sample(sampler, word)
        return {word: self._embed(found) for word, found in pictures.items()}

    def _drifts(
        self, subset: Sequence[Subject], seen: Mapping[str, Tensor], base_seen: Mapping[str, Tensor]
    ) -> dict[str, list[float]]:
        words = {one.name: one.class_word for one in subset if one.class_word in seen}
        tuned, base = ({name: side[word] for name, word in words.items()} for side in (seen, base_seen))
        return drifts(tuned, base, self.judge.references)

    def _bounds(self, base_seen: Mapping[str, Tensor]) -> Measured:
        """The base's pictures of each concept's class word, scored as if they were the concept's."""
        scores = {
            one.name: self.judge.score(one.name, base_seen[one.class_word], self._texts(one))
            for one in self._seen(self.subjects)
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

    def _texts(self, subject: Subject) -> list[str]:
        prompts = self.job.prompts_for(subject.called)
        return [evaluation_prompt(prompt, subject.called, subject.class_word) for prompt in prompts]

    def _notes(self) -> Iterator[str]:
        bare = [one.name for one in self.subjects if not one.class_word]
        if bare:
            yield f"No class word: {', '.join(bare)}. Their prompts are scored without one, and have no class drift."
