"""A scene on stock samplers: what a chain of regions and a sampling node do, from boxes that were drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...concept.concept import BlockLoRA, Stack
from ...concept.names import Names, fold
from ...regions import OverlapRule, Regions
from ...regions.composer.options import ComposerOptions
from ...regions.layout import Size
from ...regions.scene import Boxes, SceneBox, SceneError, check_names
from ..comfy import ComfyClip, ComfyConditioning, ComfyModel
from ..composer.composer import Composed, apply_composer
from ..composer.prompt import concept_prompt, member
from ..weights.patching import merged_names
from .regional import RegionalSampling, apply_regions


@dataclass(frozen=True)
class SceneJob:
    """What is to be in the picture. size: in pixels, height first. composer: LoRA-Composer's options; None samples by
    regions alone. rule: where boxes overlap."""

    boxes: Boxes
    prompt: str
    negative: str
    size: Size
    rule: OverlapRule = "priority"
    composer: ComposerOptions | None = None


@dataclass(frozen=True)
class Staged:
    """What a stock sampler takes. known: the concepts that prompts may name. composed: what LoRA-Composer tells; None
    without it."""

    model: ComfyModel
    positive: ComfyConditioning
    negative: ComfyConditioning
    regions: Regions
    known: tuple[str, ...] = field(default=())
    composed: Composed | None = None


def stage(model: ComfyModel, clip: ComfyClip, stack: Stack, job: SceneJob) -> Staged:
    """MODEL with the scene's regions, and the prompts of the whole picture. Without boxes, MODEL as it came.

    stack: concepts that boxes may name. Those that are merged into MODEL act as they are; by LoRA-Composer, the others
    act in their boxes alone. SceneError, by the number of the box, for a name that nobody has and a prompt that
    does not hold its concept.
    """
    known = known_names(model, stack)
    check_scene(job, known)
    job = replace(job, boxes=_as_known(job.boxes, known))
    lent = _lent(stack, model, job)
    regions = _regions(clip, lent, job)
    positive, negative = (_encoded(clip, text) for text in (job.prompt, job.negative))
    if not regions:
        return Staged(model, positive, negative, (), known)
    if job.composer is None:
        regional = apply_regions(model, RegionalSampling(regions, job.rule))
        return Staged(regional, positive, negative, regions, known)
    composed = apply_composer(model, regions, job.composer, job.rule, tuple(lent.values()))
    return Staged(composed.model, positive, negative, regions, known, composed)


def known_names(model: ComfyModel, stack: Stack) -> tuple[str, ...]:
    """The concepts that MODEL holds or the stack brings."""
    return tuple(dict.fromkeys([*merged_names(model), *(lora.concept.name for lora in stack)]))


def check_scene(job: SceneJob, known: tuple[str, ...]) -> None:
    """SceneError for names that are none of `known`, and, by LoRA-Composer, for a box without a concept."""
    check_names(job.boxes, job.prompt, known)
    bare = [number for number, box in enumerate(job.boxes, 1) if not box.concept]
    if job.composer is not None and bare:
        problem = "expected a concept, which composer looks for in the prompt, got none. Write one, or choose regional."
        raise SceneError(dict.fromkeys(bare, problem))


def _as_known(boxes: Boxes, known: tuple[str, ...]) -> Boxes:
    """`boxes`, each concept as its owner spells it."""
    spelt = {fold(name): name for name in known}
    return tuple(replace(box, concept=spelt.get(fold(box.concept), box.concept)) for box in boxes)


def _lent(stack: Stack, model: ComfyModel, job: SceneJob) -> Mapping[str, BlockLoRA]:
    """Name -> concept: those that boxes name, for LoRA-Composer, and that no merge has put into MODEL."""
    if job.composer is None:
        return {}
    merged, brought = Names(merged_names(model)), {lora.concept.name for lora in stack}
    named = dict.fromkeys(box.concept for box in job.boxes)
    return {name: member(stack, name) for name in named if name in brought and name not in merged}


def _regions(clip: ComfyClip, lent: Mapping[str, BlockLoRA], job: SceneJob) -> Regions:
    regions, problems = [], {}
    for number, box in enumerate(job.boxes, 1):
        negative = _encoded(clip, box.negative) if box.negative else None
        try:
            positive = _prompt(clip, lent, box, job)
            regions.append(box.region(job.size, positive, negative))
        except ValueError as error:
            problems[number] = str(error)
    if problems:
        raise SceneError(problems)
    return tuple(regions)


def _prompt(clip: ComfyClip, lent: Mapping[str, BlockLoRA], box: SceneBox, job: SceneJob) -> ComfyConditioning:
    text = box.text(job.prompt)
    if job.composer is None:
        return _encoded(clip, text)
    return concept_prompt(clip, text, box.concept, lent.get(box.concept))


def _encoded(clip: ComfyClip, text: str) -> ComfyConditioning:
    """As CLIP Text Encode does."""
    encoded: ComfyConditioning = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    return encoded
