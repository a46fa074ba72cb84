"""The base model of a cast, loaded once, and where the cast's files go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import comfy.sd
import folder_paths
import torch

from ...cast.inputs import base_mark
from ...cast.journal import Journal
from ...cast.member import Cast
from ...cast.planning import Known, Plan, plan, scheme_of
from ...concept.rows import BY_NAME, BY_PARTS, Scheme
from ..base import base_name
from ..comfy import ComfyClip, ComfyModel, ComfyVae
from ..disk import file_word, loras_folder, place
from ..ledger import taken_slots
from ..weights.names import model_weights


class Loaded(NamedTuple):
    """What CheckpointLoaderSimple gives. mark: see `base_mark`."""

    model: ComfyModel
    clip: ComfyClip
    vae: ComfyVae
    mark: str

    @property
    def name(self) -> str:
        return base_name(self.model)


def load_base(checkpoint: str) -> Loaded:
    """A file of the checkpoints folder, or a path. ValueError when there is none, or it lacks a part."""
    listed = folder_paths.get_full_path("checkpoints", checkpoint)
    path = Path(listed or checkpoint)
    if not path.is_file():
        raise ValueError(f"Checkpoint: expected a file of the checkpoints folder, or a path, got {checkpoint!r}.")
    embeddings = folder_paths.get_folder_paths("embeddings")
    with torch.inference_mode():
        model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=embeddings)
    if model is None or clip is None or vae is None:
        raise ValueError(f"Checkpoint {path.name}: expected model, text encoder and VAE in one file, got less.")
    return Loaded(model, clip, vae, base_mark(path))


@dataclass(frozen=True)
class Place:
    """Where the files of a cast on one base lie, below the loras folder, where the page's lists find them."""

    prefix: str

    @classmethod
    def of(cls, cast: Cast, base: str) -> Place:
        return cls(f"blocklora/casts/{file_word(cast.name)[:80]}/{file_word(base)[:80]}/")

    @property
    def folder(self) -> Path:
        return place(loras_folder(), self.prefix.rstrip("/"))

    @property
    def journal(self) -> Journal:
        return Journal(self.folder)


def model_scheme(model: ComfyModel, scheme: Scheme) -> Scheme:
    """`scheme` in the version that a training on MODEL gives its files."""
    return Scheme(BY_PARTS if model_weights(model).parts else BY_NAME, scheme.slots)


def make_plan(cast: Cast, base: Loaded) -> Plan:
    """The plan of `cast` on `base`. Changes nothing."""
    here, scheme, taken = Place.of(cast, base.name), scheme_of(cast), {}
    if scheme is not None:
        parts = set(model_weights(base.model).parts.values())
        taken = taken_slots(base.name, model_scheme(base.model, scheme), parts)
    return plan(cast, Known(base.mark, here.folder, here.journal.entries(), taken))
