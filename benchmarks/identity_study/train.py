"""How each method of `bench identity` trains its concepts; trained files are kept by their content. After
`import_comfyui`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import comfy.sd
import torch
from torch import nn

from benchmarks.identity_study.subject import Subject
from blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora_core.concept.rows import Scheme
from blocklora_core.files.io import load, save
from blocklora_core.host.ledger import release_saved
from blocklora_core.host.train.precision import AUTO, compute_dtype, computing_in
from blocklora_core.host.train.progress import to_image
from blocklora_core.host.train.train import TrainJob, train_concept
from blocklora_core.training import ADAPTERS, TrainConfig
from blocklora_core.training.regularisers.erasure import Erasure
from demo.base import WEIGHTS

COMMON: Mapping[str, Any] = {
    "steps": 100, "batch_size": 4, "rank": 8, "learning_rate": 0.006, "embedding_learning_rate": 0.012,
    "embedding_share": 0.2, "embedding_norm_limit": 0.55, "token": "single", "niche_weight": 0.0,
    "gram_pictures": 4, "gram_steps": 12, "preview_every": 0,
}  # fmt: skip
LAYERS = "attention + feed-forward"


@dataclass(frozen=True)
class Recipe:
    """How all concepts of a method are trained. fields: of TrainConfig by flat name, over COMMON. pattern: of the
    weights to adapt, in place of `layers`."""

    adapter: str = "row block"
    erasure: float = 0.0
    scheme: Scheme = field(default_factory=Scheme)
    fields: Mapping[str, Any] = field(default_factory=dict)
    layers: str = LAYERS
    pattern: str = ""

    def config(self, seed: int, slot: int) -> TrainConfig:
        """Seeds of different concepts and runs never meet. More concepts than slots share them in turn."""
        held = {"scheme": self.scheme, "slot": slot % self.scheme.slots, **ADAPTERS[self.adapter]}
        given = {**COMMON, **self.fields, **held, "erasure": Erasure(self.erasure), "seed": seed * 1000 + slot}
        return TrainConfig.of(**given)


class _Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Base:
    """The demo's checkpoint, loaded; it samples and trains in `precision`."""

    model: Any
    clip: Any
    vae: Any
    precision: str = AUTO

    @classmethod
    def load(cls, checkpoint: Path, precision: str = AUTO) -> Base:
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint))
        encoder = clip.cond_stage_model.clip_l.transformer.text_model.encoder
        # All but the first layer's attention adds nothing (demo/text_encoder.py) and takes most of a step's time.
        encoder.layers = nn.ModuleList(encoder.layers[:1])
        encoder.layers[0].mlp = _Nothing()
        return cls(computing_in(model, compute_dtype(model.load_device, precision)), clip, vae, precision)


@cache
def _drawn(art: Path, member: Subject) -> tuple[list[torch.Tensor], list[str]]:
    found = member.training(art)
    return [to_image(picture) for picture, _ in found], [caption for _, caption in found]


@cache
def _base_key() -> bytes:
    return hashlib.sha256(WEIGHTS.read_bytes()).digest()


@dataclass(frozen=True)
class Training:
    """One concept of one recipe and seed."""

    recipe: Recipe
    member: Subject
    seed: int
    slot: int

    def job(self, art: Path) -> TrainJob:
        images, captions = _drawn(art, self.member)
        config = self.recipe.config(self.seed, self.slot)
        return TrainJob(
            Concept(self.member.name, self.member.class_word), images, captions, config,
            -1 if config.adapter.scheme is None else config.adapter.slot, resolution=0, layers=self.recipe.layers,
            layer_pattern=self.recipe.pattern, resume=False, again=True,
        )  # fmt: skip

    def path(self, art: Path, folder: Path) -> Path:
        """Where it is kept, by a hash of all that it comes from."""
        job = self.job(art)
        layers = job.layer_pattern or job.layers
        given = [list(job.captions), job.config.to_dict(), layers, job.concept.name, job.concept.class_word]
        digest = hashlib.sha256(_base_key() + json.dumps(given, sort_keys=True).encode())
        for image in job.images:
            digest.update(image.numpy().tobytes())
        return folder / f"{self.member.name.strip('<>')}-{digest.hexdigest()[:20]}.safetensors"

    def file(self, base: Base, art: Path, folder: Path) -> BlockLoRA:
        """Trained now, or kept from before."""
        path = self.path(art, folder)
        if not path.is_file():
            job = replace(self.job(art), precision=base.precision)
            result = train_concept(base.model, base.clip, base.vae, job)
            save(path, result.lora, overwrite=True)
            release_saved(result.lora)
        return load(path)
