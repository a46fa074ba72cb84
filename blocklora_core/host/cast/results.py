"""What a trained cast is good for: merged into one file or a sheet of pictures, and evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import comfy.clip_vision
import folder_paths
import torch
from PIL import Image

from ...cast.inputs import is_there
from ...cast.journal import FINISHED
from ...cast.member import Cast, CastError
from ...concept.concept import BlockLoRA, Stack
from ...evaluation import Evaluation, Reference
from ...files.io import load
from ...files.shown import trigger_words
from ...merge import DEFAULTS
from ...reports.palette import colour
from ...reports.panels import new_panel, page
from ..base import usual_size
from ..evaluate.clip_embedder import ClipEmbedder
from ..evaluate.evaluate import evaluate
from ..evaluate.generate import Sampler, Sampling
from ..evaluate.job import EvaluateJob
from ..train.folders import read_folder
from ..weights.export import Exported, ExportJob, export
from ..weights.patching import Applied, apply_merge
from .base import Loaded, Place

LABEL = 16


@dataclass(frozen=True)
class Wanted:
    """Which concepts, by key; none for all that are finished. method: as in Merge. sampling: None for the model's
    usual size and the papers' numbers."""

    keys: Sequence[str] = ()
    method: str = "auto"
    sampling: Sampling | None = None


def stack_of(cast: Cast, base: Loaded, keys: Sequence[str] = ()) -> Stack:
    """The finished concepts, or those of `keys`, each from its file. CastError for one that is not finished."""
    here = Place.of(cast, base.name)
    entries = here.journal.entries()
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
    stack = stack_of(cast, base, wanted.keys)
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


def evaluated(cast: Cast, base: Loaded, wanted: Wanted, vision: str, job: EvaluateJob) -> Evaluation:
    """Whether the merged concepts keep their identity, against their own training pictures. vision: a file of the
    clip_vision folder, or a path."""
    stack = stack_of(cast, base, wanted.keys)
    path = Path(folder_paths.get_full_path("clip_vision", vision) or vision)
    if not path.is_file():
        raise ValueError(f"CLIP vision: expected a file of the clip_vision folder, or a path, got {vision!r}.")
    with torch.inference_mode():
        embedder = ClipEmbedder(comfy.clip_vision.load(str(path)))
        ready = replace(job, counts=(len(stack),), method=wanted.method)
        references = _references(cast, {lora.concept.name for lora in stack})
        return evaluate((base.model, base.clip, base.vae), stack, references, embedder, ready).evaluation


def _references(cast: Cast, names: set[str]) -> list[Reference]:
    found = []
    for member in cast.members:
        if member.concept.name in names:
            read = read_folder(member.folder, member.key, member.words)
            pictures = tuple(picture[..., :3] for picture in read.pictures)
            found.append(Reference(member.concept.name, member.concept.class_word, pictures))
    return found
