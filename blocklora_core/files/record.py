"""What a file says about itself: our own record, and the fields that LoRA managers show.

Our record is one JSON object under the key `blocklora`. Nothing here depends on the time, so that one
value always gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from ..concept import keys
from ..concept.concept import BlockLoRA, Concept
from ..concept.layer import Layer
from ..concept.rows import BY_NAME, Parts, Rows, Scheme, all_rows, to_list
from .shown import shown_fields
from .untrusted.header import KEPT_HEADERS
from .untrusted.json_text import parse_object
from .untrusted.text import has_unseen

KEY = "blocklora"
FORMAT = 1
GRAMS_TENSOR = "blocklora.grams"

MOST_ROWS, MOST_LAYERS = 2**31, 2**15
"""Of a weight, and of a file: far above those of any model."""

MOST_BASE = 200
"""Letters of a base's name."""

T = TypeVar("T")


_BUNDLE = "bundle_emb."
_SINGLE = ".string_to_param.*"


class Held(NamedTuple):
    """A layer's rows: how many its weight has, which of them it holds, and by which parts they were dealt out."""

    out: int
    rows: Rows
    parts: Parts = ()


@dataclass(frozen=True)
class Record:
    """Our record of a file, read and checked.

    layers: stem -> what the file says of it. embeddings: text encoder -> tensor name.
    grams: index of the packed Grams, None without them.
    """

    concept: Concept
    scheme: Scheme | None
    slot: int | None
    base: str
    layers: Mapping[str, Held]
    embeddings: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    grams: Mapping[str, Any] | None = None


def write_record(lora: BlockLoRA, grams_index: Mapping[str, Any] | None) -> dict[str, str]:
    """All metadata of a file that holds `lora`. Foreign metadata that came with it wins over what we would
    say.

    ValueError when the training configuration is not JSON-able.
    """
    record = {
        "format": FORMAT,
        "concept": lora.concept.name,
        "class_word": lora.concept.class_word,
        "scheme": lora.scheme.to_dict() if lora.scheme else None,
        "slot": lora.slot,
        "base": lora.base,
        "layers": {stem: _layer_entry(layer, lora.scheme) for stem, layer in lora.layers.items()},
        "embeddings": embedding_names(lora),
        "training": dict(lora.training),
        "grams": grams_index,
    }
    try:
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Training configuration: expected plain JSON values, got others: {error}.") from error
    return {**shown_fields(lora), **lora.metadata, KEY: text}


def read_record(metadata: Mapping[str, str]) -> Record | None:
    """Our record in a file's metadata, None when it has none; ValueError when it is damaged or too new."""
    if KEY not in metadata:
        return None
    return _read(metadata[KEY])


# A record takes longer to check than its tensors to read, and is read by whoever looks at the file.
@lru_cache(maxsize=KEPT_HEADERS)
def _read(text: str) -> Record:
    data = _parse_object(text)
    if data.get("format") != FORMAT:
        raise ValueError(
            f"Expected BlockLoRA format {FORMAT}, got {data.get('format')!r}. "
            "Update ComfyUI-BlockLoRA if the file was written by a newer version."
        )
    try:
        return _record(data)
    except KeyError as error:
        raise ValueError(f"Expected {error} in the BlockLoRA metadata, got none. {_DAMAGED}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"Expected sound BlockLoRA metadata, got: {error}. {_DAMAGED}") from error


def embedding_names(lora: BlockLoRA) -> dict[str, str]:
    """Text encoder -> name of the tensor that holds its embedding, in the form ComfyUI reads from bundles."""
    bare = lora.concept.bare
    if list(lora.embeddings) == ["clip_l"] and lora.embeddings["clip_l"].ndim == 2:
        return {"clip_l": f"{_BUNDLE}{bare}{_SINGLE}"}
    return {encoder: f"{_BUNDLE}{bare}.{encoder}" for encoder in lora.embeddings}


def bundled(name: str) -> tuple[str, str] | None:
    """(concept, text encoder) of a bundled embedding's tensor name, None for any other tensor."""
    if not name.startswith(_BUNDLE):
        return None
    inner = name[len(_BUNDLE) :]
    if inner.endswith(_SINGLE):
        return inner[: -len(_SINGLE)], "clip_l"
    concept, dot, encoder = inner.rpartition(".")
    return (concept, encoder) if dot else None


_DAMAGED = "The file is damaged: download or save it again."


def _record(data: Mapping[str, Any]) -> Record:
    scheme = None if data["scheme"] is None else Scheme.from_dict(data["scheme"])
    slot = data["slot"]
    if (scheme is None) != (slot is None):
        raise ValueError(f"Expected a scheme with a slot, or neither, got {scheme} and slot {slot}. {_DAMAGED}")
    if scheme is not None:
        scheme.check_slot(slot)
    entries = _typed(data, "layers", dict)
    if len(entries) > MOST_LAYERS:
        raise ValueError(f"Expected at most {MOST_LAYERS} layers, got {len(entries)}. {_DAMAGED}")
    return Record(
        concept=Concept(_typed(data, "concept", str), _typed(data, "class_word", str)),
        scheme=scheme,
        slot=slot,
        base=known_base(data["base"]),
        layers={stem: _held(stem, entry, scheme, slot) for stem, entry in entries.items()},
        embeddings=_names(data, "embeddings"),
        training=_typed(data, "training", dict),
        grams=None if data["grams"] is None else _typed(data, "grams", dict),
    )


def known_base(value: object) -> str:
    """The name of a base out of a file. ValueError for what is no such name."""
    if not isinstance(value, str) or len(value) > MOST_BASE or has_unseen(value):
        raise ValueError(f"Expected a base of at most {MOST_BASE} letters, got {str(value)[:80]!r}. {_DAMAGED}")
    return value


def _typed(data: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = data[key]
    if not isinstance(value, kind):
        raise TypeError(f"{key} is {value!r}")
    return value


def _names(data: Mapping[str, Any], key: str) -> dict[str, str]:
    names = _typed(data, key, dict)
    if not all(isinstance(name, str) for name in names.values()):
        raise TypeError(f"{key} is {names!r}")
    return names


def _held(stem: str, entry: Mapping[str, Any], scheme: Scheme | None, slot: int | None) -> Held:
    # The rule decides; what the file says is a check that its writer followed the same rule.
    if type(entry["out"]) is not int or not 0 < entry["out"] <= MOST_ROWS:
        raise TypeError(f"out of {stem} is {entry['out']!r}")
    parts = _parts(stem, entry, scheme)
    rows = rows_of(stem, entry["out"], scheme, slot, parts)
    if entry["rows"] != to_list(rows):
        raise ValueError(
            f"{stem}: expected rows {to_list(rows)}, as slot {slot} gives, got {entry['rows']}. {_DAMAGED}"
        )
    return Held(entry["out"], rows, parts)


def _parts(stem: str, entry: Mapping[str, Any], scheme: Scheme | None) -> Parts:
    parts = entry.get("parts", [])
    known = scheme is not None and scheme.version > BY_NAME
    if not isinstance(parts, list) or not all(type(size) is int for size in parts) or (parts and not known):
        raise TypeError(f"parts of {stem} are {parts!r}")
    return tuple(parts)


def rows_of(name: str, out_features: int, scheme: Scheme | None, slot: int | None, parts: Parts = ()) -> Rows:
    """Rows that a layer holds: its slot's, or all in a plain LoRA.

    parts: of its weight, where the name does not tell; schemes of version 1 go by the name alone.
    """
    if scheme is None or slot is None:
        return all_rows(out_features)
    return scheme.rows(slot, out_features, parts_of(name, scheme, parts))


def parts_of(name: str, scheme: Scheme, parts: Parts) -> int | Parts:
    """The parts by which `scheme` deals out the rows of a weight, see `rows_of`."""
    return parts if parts and scheme.version > BY_NAME else keys.fused_parts(name)


def _layer_entry(layer: Layer, scheme: Scheme | None) -> dict[str, Any]:
    entry = {"out": layer.out_features, "rows": to_list(layer.rows)}
    told = layer.parts and scheme is not None and scheme.version > BY_NAME
    return {**entry, "parts": list(layer.parts)} if told else entry


def _parse_object(text: str) -> dict[str, Any]:
    try:
        return parse_object(text)
    except ValueError as error:
        raise ValueError(f"Expected JSON in the BlockLoRA metadata, got: {error}. {_DAMAGED}") from error
