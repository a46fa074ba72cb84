"""What a file's tensors are, told by their names alone: the wrong file is refused before it is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..concept import adapters
from . import dialects
from .record import GRAMS_TENSOR, bundled

STOCK = "ComfyUI's own Load LoRA node may take it: put that before BlockLoRA Merge."

# Start of a tensor name -> what a file with such tensors is.
_NOT_LORAS: Mapping[str, str] = {
    "model.diffusion_model.": "a checkpoint (load it with Load Checkpoint)",
    "first_stage_model.": "a checkpoint (load it with Load Checkpoint)",
    "cond_stage_model.": "a checkpoint (load it with Load Checkpoint)",
    "conditioner.": "a checkpoint (load it with Load Checkpoint)",
    "diffusion_model.": "a diffusion model (load it with Load Diffusion Model)",
    "double_blocks.": "a diffusion model (load it with Load Diffusion Model)",
    "down_blocks.": "a diffusion model (load it with Load Diffusion Model)",
    "text_model.": "a text encoder (load it with Load CLIP)",
    "control_model.": "a ControlNet (load it with Load ControlNet Model)",
    "encoder.": "a VAE (load it with Load VAE)",
    "decoder.": "a VAE (load it with Load VAE)",
    "emb_params": "a textual inversion embedding (name it in the prompt)",
    "clip_l": "a textual inversion embedding (name it in the prompt)",
    "clip_g": "a textual inversion embedding (name it in the prompt)",
}

TensorNames = dict[str, dict[dialects.Role, str]]
"""Layer stem -> role -> tensor name."""

Others = dict[str, dict[str, str]]
"""Layer stem -> last words -> tensor name, of layers that are no LoRA (see adapters.py)."""


def sort_tensors(names: Iterable[str]) -> TensorNames:
    """Tensor names by layer and role; ValueError when something is no part of a LoRA that we can read."""
    parts: TensorNames = {}
    kinds: set[str] = set()
    unknown: list[str] = []
    for name in names:
        if name == GRAMS_TENSOR or bundled(name):
            continue
        stem, role = dialects.parse(name) or ("", None)
        if role is None:
            unknown.append(name)
        elif kind := "DoRA" if role == "dora_scale" else dialects.foreign_kind(name):
            kinds.add(kind)
        elif role in parts.setdefault(stem, {}):
            raise ValueError(f"{stem}: expected one {role}, got {parts[stem][role]} and {name}. Remove one.")
        else:
            parts[stem][role] = name
    _refuse(parts, kinds, unknown)
    return parts


def sort_foreign(names: Iterable[str]) -> tuple[TensorNames, Others]:
    """Tensor names of another tool's file: those of LoRA layers, and those of layers of other kinds.

    Other kinds are known by the names that ComfyUI's own loader takes; under other tools' names they are refused.
    ValueError as in `sort_tensors`.
    """
    names = list(names)
    others = _others(names)
    taken = {name for words in others.values() for name in words.values()}
    return sort_tensors(name for name in names if name not in taken), others


def kind_of(words: Iterable[str]) -> str:
    """What kind of adapter a layer is, told by the last words of its tensors; without DoRA's scale."""
    return next((kind for word in words if (kind := dialects.foreign_kind(f"x.{word}"))), "LoRA")


def changes_of(words: Iterable[str]) -> list[str]:
    """The changes of one weight that a layer makes, told by the last words of its tensors: a host applies only one."""
    found = set(words) & adapters.WHOLE
    for word in words:
        _, role = dialects.parse(f"x.{word}") or ("", None)
        kind = "LoRA" if role == "up" else dialects.foreign_kind(f"x.{word}")
        if kind and kind != adapters.DIFFERENCE:
            found.add(kind)
    return sorted(found)


def _others(names: list[str]) -> Others:
    words: Others = {}
    for name in names:
        stem, role = dialects.parse(name) or ("", None)
        if role is not None:
            words.setdefault(stem, {})[name[len(stem) + 1 :]] = name
    if any(dialects.to_host(stem) != stem for stem in words):
        return {}
    return {stem: found for stem, found in words.items() if _is_other(found)}


def _is_other(words: Mapping[str, str]) -> bool:
    kinds = {kind for word in words if (kind := dialects.foreign_kind(f"x.{word}"))}
    return kinds <= adapters.KINDS and (bool(kinds) or "dora_scale" in words)


def _refuse(parts: TensorNames, kinds: set[str], unknown: list[str]) -> None:
    if not any({"up", "down"} & set(roles) for roles in parts.values()):
        what = next((kind for start, kind in _NOT_LORAS.items() if _starts(unknown, start)), None)
        if what:
            raise ValueError(f"Expected a LoRA, got what looks like {what}.")
    if kinds:
        raise ValueError(f"Expected a LoRA, got one of another kind: {', '.join(sorted(kinds))}. {STOCK}")
    if unknown:
        raise ValueError(f"Expected a LoRA, got the unknown tensor {unknown[0]} ({len(unknown)} such). {STOCK}")


def _starts(names: Iterable[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)
