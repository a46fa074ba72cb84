"""Grams of files that carry none, kept under the user's folder: each is collected once."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import folder_paths
import torch
from torch import Tensor

from ...concept.concept import BlockLoRA
from ...concept.gram import Grams
from ...files import gram_pack
from ...files.io import check_grams, serialise, write_atomic
from ...files.record import GRAMS_TENSOR
from ...files.untrusted.header import read_whole, tensors_in
from ...files.untrusted.json_text import parse_object
from ...training.state import hash_weights
from ..base import base_name, small_weights
from ..comfy import ComfyModel
from ..disk import newest_first
from ..train.collect import CollectJob

KEPT_BYTES = 4 * 2**30
"""Of all kept Grams together; the ones that were used longest ago go first."""

_INDEX = "blocklora.grams_index"


@dataclass(frozen=True)
class GramStore:
    """Where Grams wait that were collected for `base`: a model's name and what tells its checkpoint from others."""

    base: str
    folder: Path

    @classmethod
    def of(cls, model: ComfyModel) -> GramStore:
        """The store for MODEL, as it is without any LoRA."""
        base = f"{base_name(model)} {hash_weights(small_weights(model.model.diffusion_model))}"
        return cls(base, Path(folder_paths.get_user_directory()) / "blocklora" / "grams")

    def path(self, lora: BlockLoRA, job: CollectJob) -> Path:
        """Where the Grams of `lora` are, once `job` has collected them."""
        asked = [job.prompts_of(lora), job.steps, job.size, job.seed, job.eigenpairs]
        key = json.dumps([_content(lora), self.base, asked])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"

    def find(self, path: Path, lora: BlockLoRA) -> Grams | None:
        """Those of `lora` that were collected before, kept at `path`; None when there are none that can be used."""
        try:
            tensors, entries = tensors_in(path, read_whole(path))
            grams = gram_pack.unpack(tensors[GRAMS_TENSOR], parse_object(entries[_INDEX]))
            check_grams(lora.layers, {name: grams.of(name).size for name in grams.input_of})
        except (ValueError, KeyError):
            return None
        with suppress(OSError):
            os.utime(path)
        return grams

    def keep(self, path: Path, grams: Grams) -> None:
        """Keep `grams` at `path`. OSError when that cannot be done."""
        packed, index = gram_pack.pack(grams)
        write_atomic(path, serialise({GRAMS_TENSOR: packed}, {_INDEX: json.dumps(index)}))
        sizes = newest_first(self.folder.glob("*.safetensors"), path)
        for one, total in zip(sizes, accumulate(sizes.values()), strict=True):
            if total > KEPT_BYTES and one != path:
                one.unlink(missing_ok=True)


def _content(lora: BlockLoRA) -> str:
    """A hash of all that a concept does to the model."""
    path = Path(lora.source)
    if path.is_absolute() and path.is_file():
        with suppress(OSError):  # it has just gone
            entry = path.stat()
            return _of_file(str(path), entry.st_size, entry.st_mtime_ns)
    digest = hashlib.sha256()
    for name, layer in sorted(lora.layers.items()):
        digest.update(f"{name} {layer.rows} {layer.scale}".encode())
        digest.update(_bytes(layer.up) + _bytes(layer.down))
    for name, vectors in sorted(lora.embeddings.items()):
        digest.update(name.encode() + _bytes(vectors))
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _of_file(path: str, _size: int, _changed: int) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
