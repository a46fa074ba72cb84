"""Safetensors in and out: an ordinary LoRA file that also carries its row block.

A saved file is what every stock loader reads, kohya's tensor names with zero rows outside the block, plus
one JSON record in the metadata (see record.py). Reading gives back exactly the block. A file that is not
what it should be is refused with the reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..concept.concept import BlockLoRA
from ..concept.gram import Grams
from ..concept.layer import Layer
from ..concept.rows import describe
from . import formats, gram_pack, shown
from .contents import TensorNames, sort_foreign, sort_tensors
from .formats import Source, pickles
from .record import GRAMS_TENSOR, KEY, Record, bundled, embedding_names, read_record, rows_of, write_record
from .tensors import DTYPES, embedding_of, layer_of
from .untrusted.header import DAMAGED, PREFIX, FileError, Stored, opened, read_header, serialised, unreadable
from .writing import write_atomic, write_new


def save(
    path: str | os.PathLike[str],
    lora: BlockLoRA,
    *,
    dtype: torch.dtype = torch.float16,
    overwrite: bool = False,
) -> Path:
    """Writes `lora` to `path` (.safetensors) in `dtype`, and gives the path.

    Atomic: the file is complete or not there. The same value gives the same bytes. Strengths are not stored.
    Folders are made. FileError when the file exists and not `overwrite`, or when the value cannot be stored.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise FileError(f"{path}: expected a name that ends in .safetensors. Rename it.")
    try:
        data = encode(lora, dtype)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error
    if overwrite:
        write_atomic(path, data)
    elif not write_new(path, data):
        raise FileError(f"{path}: expected a new file, got one that exists. Choose another name or overwrite.")
    return path


def load(path: str | os.PathLike[str]) -> BlockLoRA:
    """Reads a BlockLoRA, exactly the block that was saved, or another tool's LoRA as a plain one: scheme and slot None.

    Which tools' files are read: see `formats`. Tensors keep their dtype and come on the CPU. FileError for any file
    that is not a sound LoRA.
    """
    path = Path(path)
    reader = _load_pickle if path.suffix.lower() in pickles.SUFFIXES else _load_safetensors
    try:
        return reader(path)
    except FileError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error
    except Exception as error:  # whatever a file's contents make of the code that reads them
        raise FileError(f"{path}: {DAMAGED} ({type(error).__name__}: {error})") from error


def _load_pickle(path: Path) -> BlockLoRA:
    return formats.read(Source(path, pickles.read_tensors(path)))


def _load_safetensors(path: Path) -> BlockLoRA:
    with opened(path) as file:
        record = read_record(file.entries)
        if record is None:
            sort_foreign(file.names)  # The wrong file is refused before its tensors are read.
            return formats.read(Source(path, file.tensors(), file.entries))
        parts = sort_tensors(file.names)
        packed = file.stored(GRAMS_TENSOR)
        return _block(path, file.entries, record, parts, file.tensors(packed), packed)


def encode(lora: BlockLoRA, dtype: torch.dtype = torch.float16) -> bytes:
    """The bytes of a file that holds `lora`. ValueError when it cannot be stored."""
    if dtype not in DTYPES:
        raise ValueError(f"Expected float16, bfloat16 or float32 to save in, got {dtype}.")
    if lora.adapters:
        kinds = ", ".join(sorted(lora.kinds))
        raise ValueError(
            f"{lora.label}: expected LoRA layers alone, got {kinds} too, which our files do not hold. Keep "
            "the original file: Load reads it, at any strength."
        )
    if not lora.layers and not lora.embeddings:
        raise ValueError(f"{lora.concept.name}: expected layers to save, got none. Train the concept first.")
    tensors: dict[str, Tensor] = {}
    for stem, layer in lora.layers.items():
        _check_rows(lora, stem, layer)
        tensors[f"{stem}.lora_up.weight"] = _fit(stem, layer.full_up(), dtype)
        tensors[f"{stem}.lora_down.weight"] = _fit(stem, layer.down, dtype)
        tensors[f"{stem}.alpha"] = torch.tensor(layer.scale * layer.rank, dtype=torch.float32)
    for encoder, name in embedding_names(lora).items():
        tensors[name] = _fit(f"{encoder} embedding", lora.embeddings[encoder], dtype)
    index = None
    if lora.grams is not None:
        tensors[GRAMS_TENSOR], index = gram_pack.pack(lora.grams)
    return serialise(tensors, write_record(lora, index))


def serialise(tensors: Mapping[str, Tensor], entries: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file: the same tensors and metadata give the same bytes. Tensors share no memory."""
    # The library writes metadata in no fixed order, so its header is replaced by one with sorted keys.
    data = safetensors.torch.save(dict(sorted(tensors.items())), dict(entries))
    (length,) = PREFIX.unpack_from(data)
    body = PREFIX.size + length
    return serialised(json.loads(data[PREFIX.size : body]), data[body:])


def _fit(what: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    cast = tensor.detach().to("cpu", dtype, copy=True).contiguous()
    if bool(cast.isfinite().all()):
        return cast
    if bool(tensor.isfinite().all()):
        raise ValueError(f"{what}: expected values that fit {dtype}, got larger ones. Save in float32.")
    raise ValueError(f"{what}: expected finite values, got NaN or infinity. Train at a lower learning rate.")


def _check_rows(lora: BlockLoRA, stem: str, layer: Layer) -> None:
    rows = rows_of(stem, layer.out_features, lora.scheme, lora.slot, layer.parts)
    if layer.rows != rows:
        owner = "a plain LoRA" if lora.slot is None else f"slot {lora.slot}"
        raise ValueError(f"{stem}: expected {describe(rows)}, all of {owner}, got {describe(layer.rows)}.")


def _block(
    path: Path,
    entries: Mapping[str, str],
    record: Record,
    parts: TensorNames,
    tensors: Mapping[str, Tensor],
    packed: Stored | None,
) -> BlockLoRA:
    _check_complete(record, parts, [*tensors, *([packed.name] if packed else [])])
    layers = {stem: layer_of(stem, roles, tensors, record.layers[stem]) for stem, roles in sorted(parts.items())}
    lora = BlockLoRA(
        concept=record.concept,
        layers=layers,
        scheme=record.scheme,
        slot=record.slot,
        base=record.base,
        embeddings={encoder: embedding_of(name, tensors) for encoder, name in record.embeddings.items()},
        grams=None if record.grams is None else _grams(record.grams, layers, packed, tensors),
        training=record.training,
        source=str(path),
    )
    # What we would write ourselves is not foreign: dropping it keeps load and save inverse to each other.
    own = {KEY: entries[KEY], **shown.shown_fields(lora)}
    return lora.with_metadata({key: value for key, value in entries.items() if own.get(key) != value})


def _grams(
    index: Mapping[str, Any], layers: Mapping[str, Layer], packed: Stored | None, tensors: Mapping[str, Tensor]
) -> Grams:
    """Those of the file's layers; where they are stored behind all else, they are read when a merge asks for them."""
    found = gram_pack.Index.of(index)
    if packed:
        found.check(packed.size)
    grams = found.later(packed) if packed else Grams(found.unpack(tensors[GRAMS_TENSOR]), found.layers)
    check_grams(layers, found.sizes)
    return grams


def check_grams(layers: Mapping[str, Layer], sizes: Mapping[str, int]) -> None:
    """ValueError unless Grams of these sizes, by layer, are those of `layers`."""
    for name, size in sizes.items():
        if name not in layers:
            raise ValueError(f"Grams: expected those of the file's layers, got one of {name}. Save the file again.")
        if size != layers[name].in_features:
            expected = layers[name].in_features
            raise ValueError(f"Grams: expected {expected} inputs for {name}, got {size}. Save the file again.")


def _check_complete(record: Record, parts: TensorNames, names: Collection[str]) -> None:
    listed = {*record.embeddings.values(), *([GRAMS_TENSOR] if record.grams is not None else [])}
    stored = {name for name in names if name == GRAMS_TENSOR or bundled(name)}
    odd = sorted(set(record.layers) ^ set(parts)) or sorted(listed ^ stored)
    if odd:
        where = "metadata only" if odd[0] in record.layers or odd[0] in listed else "tensors only"
        raise ValueError(f"Expected metadata and tensors to agree, got {odd[0]} in the {where}. Save the file again.")


__all__ = ["FileError", "encode", "load", "read_header", "save", "serialise", "write_atomic"]
