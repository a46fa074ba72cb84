"""PyTorch's pickled files, opened without ever running what they hold."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ..untrusted.header import check_name, check_ordinary

SUFFIXES = frozenset({".pth", ".pt", ".ckpt", ".bin", ".pkl"})

_MAX_DEPTH = 4  # Mix-of-Show nests 3 deep; a dictionary may hold itself
# Of files whose dictionaries mean something.
_PARTS = frozenset({"unet", "text_encoder", "new_concept_embedding", "string_to_param"})

_ALPHA = ".alpha"
_SLACK = 1_000_000  # bytes: small archives may hold a packed pickle

MOST_TENSORS, MOST_PROGRAM = 2**16, 2**24
_LEGACY_PICKLES = 5  # magic number, protocol, system, tree, names of storages

# All that a file of tensors in dictionaries names; torch's reader chooses among its own.
_NAMES = re.compile(r"torch[\w.]* \w+|collections OrderedDict")

# What the restricted unpickler raises for bytes that are no sound file of tensors.
_BROKEN = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, AttributeError, TypeError, ValueError,
    ArithmeticError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU; one in nested dictionaries is called "outer/inner", one in the `state_dict` that
    trainers save beside their own state just "inner".

    Nothing but tensors, dictionaries and plain values is let in (torch's weights_only): ValueError for any other file.
    Plain values, such as counters, are left out, but for alphas. OSError when it cannot be read.
    """
    check_ordinary(path)
    with path.open("rb") as file:
        _check_size(path)
        try:
            _check_program(path)
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
        if len(found) > MOST_TENSORS:
            raise ValueError(f"expected at most {MOST_TENSORS} tensors, got more. It is not a LoRA.")
    _check_storage(path, found.values())
    return found


def _weights(tree: dict[object, object]) -> dict[object, object]:
    """The tensors' own dictionary, as ComfyUI's loader finds it: `state_dict`, or the only one there is."""
    only = next(iter(tree)) if len(tree) == 1 else None
    inner = tree.get("state_dict" if only in (None, *_PARTS) else only)
    holds = isinstance(inner, dict) and ("state_dict" in tree or any(isinstance(x, Tensor) for x in inner.values()))
    return inner if isinstance(inner, dict) and holds else tree


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


def _check_program(path: Path) -> None:
    """ValueError for a pickle that asks for more than tensors and dictionaries, which is all that a LoRA is made of.

    torch's own restricted reader lets in functions that fill the memory, such as bytearray. Only names are looked at;
    nothing is run.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if entry.filename.endswith("data.pkl"):
                        _check_names(io.BytesIO(_program(archive, entry)), 1)
        else:
            file.seek(0)
            _check_names(file, _LEGACY_PICKLES)


def _program(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > MOST_PROGRAM:
        raise ValueError(f"expected a pickle of at most {MOST_PROGRAM} bytes, got {entry.file_size}. It is not a LoRA.")
    return archive.read(entry)


def _check_names(file: BinaryIO, pickles: int) -> None:
    for _ in range(pickles):
        for opcode, argument, at in pickletools.genops(file):
            if at is not None and at > MOST_PROGRAM:
                raise ValueError(f"expected a pickle of at most {MOST_PROGRAM} bytes, got more. It is not a LoRA.")
            if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL") and not _NAMES.fullmatch(str(argument)):
                raise ValueError(f"expected tensors and dictionaries, got {str(argument)[:80]}")


def _check_storage(path: Path, tensors: Iterable[Tensor]) -> None:
    """ValueError where tensors hold more numbers than the file: the rest would be whatever the memory held."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    held, size = sum(storages.values()), path.stat().st_size
    if held > size:
        raise ValueError(f"expected numbers that fill the file of {size} bytes, got {held}. The file is damaged.")


def _flat(tree: dict[object, object], prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"{prefix}: expected at most {_MAX_DEPTH} dictionaries in each other, got more.")
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if not isinstance(key, str):
            raise ValueError(f"{name}: expected names as text, got {type(key).__name__}. It is not a LoRA.")
        check_name(name)
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
