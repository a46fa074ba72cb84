"""A merge written as one ordinary LoRA file, and the concepts' tokens as the embeddings that stock nodes read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch
from torch import Tensor

from ...concept.concept import BlockLoRA, Concept, Stack
from ...concept.layer import Layer
from ...files.io import serialise
from ...files.shown import file_word, trigger
from ...merge.export import flat, in_dtype, relative_error, smallest_exact, truncated
from ..base import base_name
from ..comfy import ComfyClip, ComfyModel
from ..disk import Owned, embeddings_folder, free_file, is_owned, place, safe_name, target_file, write, write_lora
from ..interrupt import cancellable
from .names import clip_stems, model_stems, preferred_stems
from .patching import Applied

AUTO = "auto"

DTYPES: Mapping[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

RECORD = "blocklora.export"
"""Key in the file's metadata: which concepts were merged, and how."""


@dataclass(frozen=True)
class ExportJob:
    """How to export. name: the file's, in or below the loras folder. dtype: of DTYPES, or AUTO for the smallest that
    loses nothing. max_rank: 0 for an exact file, whatever rank that takes."""

    name: str
    dtype: str = AUTO
    max_rank: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written.

    ranks: lowest and highest of a layer; full_ranks: those of the exact merge. error: of the file against the merge,
    relative, in Frobenius norm. embeddings: concept name -> what stock prompts call it. layerwise: concepts whose token
    is layer-wise, which no embedding file can hold. called: those whose text encoder's part reads only prompts that
    call them, which no file can do.
    """

    path: Path
    layers: int
    ranks: tuple[int, int]
    full_ranks: tuple[int, int]
    dtype: torch.dtype
    error: float
    embeddings: Mapping[str, str]
    layerwise: tuple[str, ...]
    called: tuple[str, ...]

    def left_out(self) -> list[str]:
        """What the file lacks of the merge, a line each."""
        lines = []
        if self.layerwise:
            lines.append(
                f"No embedding file can hold the layer-wise tokens of {', '.join(self.layerwise)}: prompts know them "
                "only after BlockLoRA Merge or Loader."
            )
        if self.called:
            lines.append(
                f"Not in the file: what the text encoder learnt of {', '.join(self.called)}. Kept apart, it reads only "
                "prompts that call them, which one file cannot do."
            )
        return lines


def export(applied: Applied, stack: Stack, job: ExportJob) -> Exported:
    """Writes the merge `applied` of `stack`. ValueError when there is nothing to write or the name is no good."""
    with cancellable():
        return _export(applied, stack, job)


def _export(applied: Applied, stack: Stack, job: ExportJob) -> Exported:
    exact = flat(applied.merged.members)
    if not exact:
        raise ValueError("Export: expected layers to write, got none. All concepts have strength 0 or no layers.")
    kept = {name: truncated(layer, job.max_rank) if job.max_rank else layer for name, layer in exact.items()}
    dtype = _dtype(job.dtype, kept.values())
    concept, prefix = _name(job.name)
    target = target_file(prefix, concept)
    owned = _is_export if job.overwrite else None
    if owned is None or not is_owned(target, owned):
        target = free_file(target)
    members = applied.merged.members
    embeddings = _write_embeddings(members, f"{prefix}{target.stem}", job.overwrite)
    lora = _as_lora(concept, kept, applied, stack, embeddings)
    path = write_lora(target, lora, owned, dtype)
    stored = {name: in_dtype(layer, dtype) for name, layer in kept.items()}
    layerwise = tuple(member.concept.name for member in members if _is_layerwise(member))
    error = relative_error(stored, exact)
    reads = {one.concept.name for one in stack if one.effective_strength_clip}
    called = [name for name in applied.called if name in reads]
    return Exported(
        path=path,
        layers=len(kept),
        ranks=_ranks(kept),
        full_ranks=_ranks(exact),
        dtype=dtype,
        error=error,
        embeddings=embeddings,
        layerwise=layerwise,
        called=tuple(called),
    )


def _ranks(layers: Mapping[str, Layer]) -> tuple[int, int]:
    ranks = [layer.rank for layer in layers.values()]
    return min(ranks), max(ranks)


def _dtype(name: str, layers: Iterable[Layer]) -> torch.dtype:
    if name == AUTO:
        return smallest_exact([factor for layer in layers for factor in (layer.up, layer.down)])
    if name not in DTYPES:
        raise ValueError(f"Export: expected {AUTO} or one of {', '.join(DTYPES)} to write in, got {name!r}.")
    return DTYPES[name]


def _name(name: str) -> tuple[Concept, str]:
    """The file's last name as a concept, and the folders before it."""
    folders, _, last = name.strip().removesuffix(".safetensors").replace("\\", "/").rpartition("/")
    if not last:
        raise ValueError(f"Export: expected a file name such as blocklora/merged, got {name!r}.")
    return Concept(file_word(PurePath(last + ".safetensors"))), f"{folders}/" if folders else ""


def _is_layerwise(member: BlockLoRA) -> bool:
    return any(vectors.ndim == 3 for vectors in member.embeddings.values())


def _is_export(metadata: Mapping[str, str]) -> bool:
    return RECORD in metadata


def _write_embeddings(members: Stack, folder: str, overwrite: bool) -> dict[str, str]:
    """Each token as a file of its own in the embeddings folder: concept name -> what prompts call it."""
    words: dict[str, str] = {}
    root = embeddings_folder()
    for member in members:
        if member.embeddings and not _is_layerwise(member):
            target = place(root, f"{folder}/{safe_name(member.concept)}.safetensors")
            entries = {RECORD: json.dumps({"concept": member.concept.name})}
            # "<a>" and "a" are two names, but one file name: the record tells them apart.
            path = write(target, serialise(_embedding_tensors(member), entries), _same(entries) if overwrite else None)
            words[member.concept.name] = f"embedding:{path.with_suffix('').relative_to(root.resolve()).as_posix()}"
    return words


def _same(entries: Mapping[str, str]) -> Owned:
    return lambda metadata: metadata.get(RECORD) == entries[RECORD]


def _embedding_tensors(member: BlockLoRA) -> dict[str, Tensor]:
    # Tools for SD1.5 know this name, those for SDXL name the encoders.
    names = {"clip_l": "emb_params"} if list(member.embeddings) == ["clip_l"] else {}
    return {
        names.get(encoder, encoder): vectors.detach().cpu().float().contiguous().clone()
        for encoder, vectors in member.embeddings.items()
    }


def _as_lora(
    concept: Concept, layers: Mapping[str, Layer], applied: Applied, stack: Stack, embeddings: Mapping[str, str]
) -> BlockLoRA:
    stems = _file_stems(applied.model, applied.clip)
    members = [_member(lora) for lora in stack]
    prompts = [trigger(lora.concept) for lora in applied.merged.members if lora.concept.name in embeddings]
    entries = {
        RECORD: json.dumps({"method": applied.merged.method, "members": members}, sort_keys=True),
        "ss_training_comment": f"{len(stack)} concepts merged by ComfyUI-BlockLoRA ({applied.merged.method}).",
    }
    if prompts:
        entries["modelspec.trigger_phrase"] = ", ".join(prompts)
    named = {stems[name]: layer for name, layer in layers.items()}
    return BlockLoRA(concept, named, base=base_name(applied.model), metadata=entries)


def _file_stems(model: ComfyModel, clip: ComfyClip | None) -> dict[str, str]:
    stems = {**model_stems(model), **(clip_stems(clip) if clip is not None else {})}
    return preferred_stems(stems)


def _member(lora: BlockLoRA) -> dict[str, object]:
    return {
        "concept": lora.concept.name,
        "class_word": lora.concept.class_word,
        "slot": lora.slot,
        "strength": lora.strength,
        "strength_clip": lora.effective_strength_clip,
        "file": PurePath(lora.source).name,
    }
