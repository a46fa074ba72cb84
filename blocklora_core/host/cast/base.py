"""The base model of a cast, loaded once, and where the cast's files go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import comfy.sd
import folder_paths
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ...cast.inputs import base_mark
from ...cast.journal import Entry, Journal
from ...cast.member import Cast, CastError
from ...cast.planning import Known, Plan, plan, scheme_of
from ...concept.rows import BY_NAME, BY_PARTS, Parts, Scheme
from ...training.state import hash_weights
from ..base import base_name, small_weights, usual_size
from ..comfy import ComfyClip, ComfyModel, ComfyVae
from ..disk import file_word, loras_folder, place
from ..ledger import taken_slots
from ..weights.names import model_weights

LOCK = "cast.lock"


class Facts(NamedTuple):
    """What a plan needs to know of a base, which a cluster's driver does not load. mark: tells one base from another.
    parts: of its weights that are several layers in one. size: of its usual picture, height and width in pixels."""

    name: str
    mark: str
    parts: frozenset[Parts]
    size: int

    def versioned(self, scheme: Scheme) -> Scheme:
        """`scheme` in the version that a training on the base gives its files."""
        return replace(scheme, version=BY_PARTS if self.parts else BY_NAME)


class Loaded(NamedTuple):
    """What CheckpointLoaderSimple gives. mark: see `Facts`."""

    model: ComfyModel
    clip: ComfyClip
    vae: ComfyVae
    mark: str

    @property
    def facts(self) -> Facts:
        parts = frozenset(model_weights(self.model).parts.values())
        return Facts(base_name(self.model), self.mark, parts, usual_size(self.model))


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


def graph_base(model: ComfyModel, clip: ComfyClip, vae: ComfyVae) -> Loaded:
    """What a graph brings, whose checkpoint nobody names: it is told from others by its weights, and by what is patched
    onto them."""
    networks = (model.model.diffusion_model, clip.cond_stage_model, vae.first_stage_model)
    told = [hash_weights(small_weights(network)) for network in networks]
    for patcher in (model, clip.patcher):
        told += [f"{key} {_patched(patches)}" for key, patches in sorted(patcher.patches.items(), key=str)]
    return Loaded(model, clip, vae, sha256("\n".join(told).encode()).hexdigest())


def _patched(patches: Sequence[Any]) -> str:
    strengths = [patch[0] for patch in patches]
    weights = [getattr(patch[1], "weights", patch[1]) for patch in patches]
    tensors = [one for kept in weights for one in kept if isinstance(one, Tensor)]
    return f"{strengths} {hash_weights(tensors)}"


@dataclass(frozen=True)
class Place:
    """Where the files of a cast on one base lie, below the loras folder, where the page's lists find them."""

    prefix: str
    source: Path | None = None

    @classmethod
    def of(cls, cast: Cast, base: Facts) -> Place:
        """Bases of one architecture have folders of their own. CastError where another cast of this name has it."""
        prefix = f"blocklora/casts/{file_word(cast.name)[:80]}/{file_word(base.name)[:80]}-{base.mark[:8]}/"
        here = cls(prefix, cast.source)
        if other := here.journal.other:
            raise CastError(
                f"Cast {cast.name}: expected a name of its own, as its files lie in loras/{prefix}, got the name of "
                f"the cast in {other}. Rename one of the two folders."
            )
        return here

    @property
    def folder(self) -> Path:
        return place(loras_folder(), self.prefix.rstrip("/"))

    @property
    def journal(self) -> Journal:
        return Journal(self.folder, self.source)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes files of the cast while the block runs. CastError while somebody does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise CastError(
                f"Cast: expected to be the only one who trains it, but another process is at work on {self.folder}. "
                "Wait for it, or end it."
            ) from error
        try:
            yield
        finally:
            lock.release()

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.journal.entries()


def make_plan(cast: Cast, base: Facts) -> Plan:
    """The plan of `cast` on `base`. Changes nothing."""
    here, scheme = Place.of(cast, base), scheme_of(cast)
    taken = {} if scheme is None else taken_slots(base.name, base.versioned(scheme), base.parts)
    return plan(cast, Known(base.mark, here.folder, here.entries, taken))
