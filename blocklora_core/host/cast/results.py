"""What a trained cast is good for: merged into one file or a sheet of pictures, and evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from ...cast.inputs import is_there
from ...cast.journal import FINISHED, Entry
from ...cast.member import Cast, CastError
from ...cast.tasks import Executor, OnProgress, Task, unheard
from ...concept.concept import BlockLoRA, Stack
from ...evaluation import Evaluation, Reference
from ...files.io import load
from ...files.shown import trigger_words
from ...merge import DEFAULTS
from ...merge.methods.fused import lacks_grams
from ...reports.palette import colour
from ...reports.panels import new_panel, page
from ..base import usual_size
from ..evaluate.generate import Sampler, Sampling
from ..evaluate.job import EvaluateJob
from ..train.collect import CollectJob
from ..train.folders import read_folder
from ..weights.export import Exported, ExportJob, export
from ..weights.patching import Applied, apply_merge
from .base import Facts, Loaded, Place
from .train import keep
from .worker import COLLECT, EVALUATE

LABEL = 16


@dataclass(frozen=True)
class Wanted:
    """Which concepts, by key; none for all that are finished. method: as in Merge. sampling: None for the model's
    usual size and the papers' numbers."""

    keys: Sequence[str] = ()
    method: str = "auto"
    sampling: Sampling | None = None


def stack_of(cast: Cast, base: Facts, keys: Sequence[str] = ()) -> Stack:
    """The finished concepts, or those of `keys`, each from its file. CastError for one that is not finished."""
    here = Place.of(cast, base)
    entries = here.entries
    done = dict[str, BlockLoRA]()
    for member in cast.members:
        entry = entries.get(member.concept.name)
        if (keys and member.key not in keys) or entry is None or entry.event != FINISHED:
            continue
        if is_there(entry, here.folder):
            done[member.key] = load(here.folder / entry.file)
    missing = sorted({*keys} - done.keys())
    if missing or not done:
        got = f"none for {', '.join(missing[:5])}" if missing else "none"
        raise CastError(f"Cast {cast.name}: expected finished concepts on {base.name}, got {got}. Train them first.")
    return tuple(done.values())


def merged(cast: Cast, base: Loaded, wanted: Wanted) -> tuple[Applied, Stack]:
    """The merge, and what was merged."""
    stack = stack_of(cast, base.facts, wanted.keys)
    with torch.inference_mode():
        return apply_merge(stack, base.model, base.clip, method=wanted.method, options=DEFAULTS), stack


def to_file(cast: Cast, base: Loaded, wanted: Wanted, name: str) -> Exported:
    """The merge as one ordinary LoRA in the loras folder."""
    applied, stack = merged(cast, base, wanted)
    with torch.inference_mode():
        return export(applied, stack, ExportJob(name))


def to_sheet(cast: Cast, base: Loaded, wanted: Wanted, prompt: str, path: Path) -> Path:
    """A picture of each concept, all from one merged model. prompt: with {} where the concept stands."""
    applied, stack = merged(cast, base, wanted)
    sampling = wanted.sampling or Sampling(size=usual_size(base.model))
    prompts = [prompt.replace("{}", trigger_words(lora) or lora.concept.name) for lora in stack]
    with torch.inference_mode():
        pictures = Sampler(applied.model, applied.clip, base.vae, sampling).pictures(prompts)
    titles = [f"{lora.concept.name} slot {'-' if lora.slot is None else lora.slot}" for lora in stack]
    page([_panel(at, *pair) for at, pair in enumerate(zip(titles, pictures, strict=True))]).save(path, "PNG")
    return path


def _panel(place: int, title: str, picture: torch.Tensor) -> Image.Image:
    shown = Image.fromarray(picture.numpy())
    panel, draw = new_panel(shown.width, shown.height + LABEL, title)
    draw.line((0, LABEL - 2, shown.width, LABEL - 2), fill=colour(place))
    panel.paste(shown, (0, LABEL))
    return panel


def evaluated(
    cast: Cast,
    base: Facts,
    executor: Executor,
    wanted: Wanted,
    vision: str,
    job: EvaluateJob,
    on_progress: OnProgress = unheard,
) -> Evaluation:
    """Whether the merged concepts keep their identity, against their own training pictures: each executor's worker
    samples some of them from the merge of all. vision: a file of the clip_vision folder, or a path. CastError where a
    worker could not."""
    stack = stack_of(cast, base, wanted.keys)
    names = [lora.concept.name for lora in stack]
    shared = executor.share(stack), executor.share(_references(cast, {*names})), vision
    ready = replace(job, method=wanted.method)
    parts = [tuple(names[at :: executor.size]) for at in range(min(executor.size, len(names)))]
    tasks = [Task(part[0], EVALUATE, partial(tuple, (*shared, part, ready))) for part in parts]
    found = dict[str, Evaluation]()
    for outcome in executor.run(tasks, on_progress):
        if outcome.error:
            raise CastError(f"Cast {cast.name}: expected an evaluation, got: {outcome.error}")
        found[outcome.task.concept] = outcome.result
    return Evaluation.join([found[part[0]] for part in parts])


def collected(
    cast: Cast,
    base: Facts,
    executor: Executor,
    job: CollectJob,
    told: Callable[[Entry], None],
    on_progress: OnProgress = unheard,
) -> dict[str, str]:
    """Grams for those who were trained but lack them, as memory ran out: into their files, which are finished then.
    Concept -> why, of those that failed."""
    here, failed = Place.of(cast, base), dict[str, str]()
    with here.alone():
        entries, names = here.entries, {member.concept.name for member in cast.members}
        written = [entry for name, entry in entries.items() if name in names and is_there(entry, here.folder)]
        due = {entry.concept: lora for entry in written if lacks_grams(lora := load(here.folder / entry.file))}
        tasks = [Task(name, COLLECT, partial(tuple, (lora, job))) for name, lora in due.items()]
        for outcome in executor.run(tasks, on_progress):
            name = outcome.task.concept
            if outcome.error:
                failed[name] = outcome.error
                continue
            path = keep(here, base, due[name].concept, outcome.result)
            entry = replace(entries[name], event=FINISHED, file=path.name, bytes=path.stat().st_size, error="")
            here.journal.add(entry)
            told(entry)
    return failed


def _references(cast: Cast, names: set[str]) -> list[Reference]:
    found = []
    for member in cast.members:
        if member.concept.name in names:
            read = read_folder(member.folder, member.key, member.words)
            pictures = tuple(picture[..., :3] for picture in read.pictures)
            found.append(Reference(member.concept.name, member.concept.class_word, pictures))
    return found
