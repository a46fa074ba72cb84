"""What a file's tensors are, told by their names alone: the wrong file is refused before it is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..concept import adapters
from . import dialects, strangers
from .conversions import converted
from .record import GRAMS_TENSOR, bundled

STOCK = "ComfyUI's own Load LoRA node may take it: put that before BlockLoRA Merge."

TensorNames = dict[str, dict[dialects.Role, str]]
"""Layer stem -> role -> tensor name."""

# Words that ComfyUI's own loader has for parts that every dialect calls otherwise.
_WORDS: Mapping[dialects.Role, str] = {
    "down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight", "dora_scale": "dora_scale",
}  # fmt: skip

Others = dict[str, dict[str, str]]
"""Layer stem -> last words -> tensor name, of layers that are no LoRA (see adapters.py)."""


class Sorted(NamedTuple):
    """Another tool's tensors. left: names of those that are left out, as they are part of no whole layer."""

    names: TensorNames
    others: Others
    left: tuple[str, ...]


def sort_tensors(names: Iterable[str]) -> TensorNames:
    """Tensor names of our own file by layer and role; ValueError when something is no part of a LoRA."""
    parts, unknown = _parts({name: name for name in names})
    if unknown:
        raise _unknown(unknown)
    return parts


def sort_foreign(names: Iterable[str]) -> Sorted:
    """Tensor names of another tool's file: those of LoRA layers, those of layers of other kinds, and the rest.

    What ComfyUI's loader leaves out beside layers that it applies is left out: tensors of no kind, such as the biases
    of a LoRA, and layers without their up. ValueError when the file is none of LoRA layers, or one of a kind that
    cannot be read.
    """
    given = converted(names)
    if strange := strangers.name_of(given):
        raise ValueError(f"Expected a LoRA, got what looks like {strange}.")
    others = _others(given)
    taken = {name for words in others.values() for name in words.values()}
    parts, unknown = _parts({name: tensor for name, tensor in given.items() if tensor not in taken})
    halves = [stem for stem, roles in parts.items() if "up" not in roles]
    whole = {stem: roles for stem, roles in parts.items() if stem not in halves}
    if not whole and not others:
        if unknown:
            raise _unknown(unknown)
        return Sorted(parts, others, ())
    return Sorted(whole, others, (*unknown, *(name for stem in halves for name in parts[stem].values())))


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


def _parts(given: Mapping[str, str]) -> tuple[TensorNames, list[str]]:
    """given: name as ComfyUI's loader calls it -> tensor name."""
    parts: TensorNames = {}
    kinds: set[str] = set()
    unknown: list[str] = []
    for name, tensor in given.items():
        if name == GRAMS_TENSOR or bundled(name):
            continue
        stem, role = dialects.parse(name) or ("", None)
        if role is None:
            unknown.append(tensor)
        elif kind := "DoRA" if role == "dora_scale" else dialects.foreign_kind(name):
            kinds.add(kind)
        elif role in parts.setdefault(stem, {}):
            raise ValueError(f"{stem}: expected one {role}, got {parts[stem][role]} and {tensor}. Remove one.")
        else:
            parts[stem][role] = tensor
    if kinds:
        raise ValueError(f"Expected a LoRA, got one of another kind: {', '.join(sorted(kinds))}. {STOCK}")
    return parts, unknown


def _others(given: Mapping[str, str]) -> Others:
    words: Others = {}
    for name, tensor in given.items():
        stem, role = dialects.parse(name) or ("", None)
        if role is not None:
            words.setdefault(stem, {})[_WORDS.get(role, name[len(stem) + 1 :])] = tensor
    return {stem: found for stem, found in words.items() if _is_other(found)}


def _is_other(words: Mapping[str, str]) -> bool:
    kinds = {kind for word in words if (kind := dialects.foreign_kind(f"x.{word}"))}
    return kinds <= adapters.KINDS and (bool(kinds) or "dora_scale" in words)


def _unknown(names: list[str]) -> ValueError:
    return ValueError(
        f"Expected a LoRA, got the unknown tensor {names[0]} ({len(names)} such), which no loader of ComfyUI applies. "
        "Convert the file to kohya's or diffusers' names with the tool that made it."
    )
