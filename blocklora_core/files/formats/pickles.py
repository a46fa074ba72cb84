"""PyTorch's pickled files, opened without ever running what they hold."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

SUFFIXES = frozenset({".pth", ".pt", ".ckpt", ".bin", ".pkl"})

_MAX_DEPTH = 4  # Mix-of-Show nests 3 deep; a dictionary may hold itself
_ALPHA = ".alpha"
_SLACK = 1_000_000  # bytes: small archives may hold a packed pickle

# What the restricted unpickler raises for bytes that are no sound file of tensors.
_BROKEN = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, AttributeError, TypeError, ValueError,
    ArithmeticError,
)  # fmt: skip


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU; one in nested dictionaries is called "outer/inner", one in the `state_dict` that
    trainers save beside their own state just "inner".

    Nothing but tensors, dictionaries and plain values is let in (torch's weights_only): ValueError for any other file.
    Plain values, such as counters, are left out, but for alphas. OSError when it cannot be read.
    """
    with path.open("rb") as file:
        _check_size(path)
        try:
            tree = torch.load(file, map_location="cpu", weights_only=True)
        except _BROKEN as error:
            # torch's message tells how to load unsafely, so it is not shown.
            raise ValueError(
                "expected a PyTorch file of plain tensors, got a damaged one or one with Python objects in it, which "
                "could run code. Nothing in it was run. Get a .safetensors of it, or convert it where you trust it."
            ) from error
    if isinstance(tree, list) and tree and all(isinstance(value, Tensor) for value in tree):
        raise ValueError(
            "expected a dictionary of tensors, got a list of them, as cloneofsimo's lora saves. No loader of ComfyUI "
            "takes it, as it has no names. Convert it with that project's own script."
        )
    if not isinstance(tree, dict):
        raise ValueError(f"expected a dictionary of tensors, got {type(tree).__name__}. It is not a LoRA.")
    found: dict[str, Tensor] = {}
    for name, value in _flat(_weights(tree), "", 1):
        if name in found:
            raise ValueError(f"{name}: expected every name once, got it twice. The file is damaged.")
        found[name] = value
    return found


def _weights(tree: dict[object, object]) -> dict[object, object]:
    inner = tree.get("state_dict")
    return inner if isinstance(inner, dict) else tree


def _check_size(path: Path) -> None:
    """ValueError for an archive that unpacks to far more than it is: PyTorch's own hold their tensors unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    except zipfile.BadZipFile:
        return  # the older form, or damaged, as its reader will tell
    if unpacked > 2 * size + _SLACK:
        raise ValueError(
            f"expected an archive of plain tensors, got one of {size} bytes that unpacks to {unpacked}. It would fill "
            "the memory: get the file from its author again."
        )


def _flat(tree: dict[object, object], prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"{prefix}: expected at most {_MAX_DEPTH} dictionaries in each other, got more.")
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if not isinstance(key, str):
            raise ValueError(f"{name}: expected names as text, got {type(key).__name__}. It is not a LoRA.")
        if isinstance(value, dict):
            yield from _flat(value, f"{name}/", depth + 1)
        elif isinstance(value, Tensor):
            yield name, _tensor(name, value)
        elif name.endswith(_ALPHA) and isinstance(value, (int, float)):
            yield name, torch.tensor(float(value))


def _tensor(name: str, value: Tensor) -> Tensor:
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ValueError(f"{name}: expected a plain tensor, got a sparse, quantised or empty one. It is not a LoRA.")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(f"{name}: expected a tensor with all its numbers, got one that repeats a few.")
    return value.detach()
