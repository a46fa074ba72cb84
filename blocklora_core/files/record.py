"""What a file says about itself: our own record, and the fields that LoRA managers show.

Our record is one JSON object under the key `blocklora`. Nothing here depends on the time, so that one
value always gives the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeVar

from ..concept import keys
from ..concept.concept import BlockLoRA, Concept, Layer
from ..concept.rows import Rows, Scheme, all_rows, to_list

KEY = "blocklora"
FORMAT = 1
GRAMS_TENSOR = "blocklora.grams"
NOTE = "blocklora.import_note"
"""Key in BlockLoRA.metadata: what the import of another tool's file could not keep."""

T = TypeVar("T")

_MOST_TAGS = 5

# What PEFT and diffusers call every file that they save.
_TOOL_NAMES = frozenset({"adapter_model", "pytorch_lora_weights"})

_BUNDLE = "bundle_emb."
_SINGLE = ".string_to_param.*"

# Base architecture -> (kohya's ss_base_model_version, modelspec.architecture).
_BASES: Mapping[str, tuple[str, str]] = {
    "sd15": ("sd_v1", "stable-diffusion-v1"),
    "sd20": ("sd_v2", "stable-diffusion-v2-512"),
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
    "sd3": ("sd3m", "stable-diffusion-3-medium"),
    "flux": ("flux1", "flux-1-dev"),
}

# Field that LoRA managers show -> key in BlockLoRA.training.
_TRAINING_FIELDS: Mapping[str, str] = {
    "ss_num_train_images": "images",
    "ss_max_train_steps": "steps",
    "ss_steps": "steps_done",
    "ss_learning_rate": "learning_rate",
    "ss_unet_lr": "learning_rate",
    "ss_text_encoder_lr": "learning_rate_text",
    "ss_seed": "seed",
    "ss_total_batch_size": "batch_size",
    "ss_resolution": "resolution",
    "ss_noise_offset": "noise_offset",
    "ss_optimizer": "optimizer",
    "ss_lr_scheduler": "scheduler",
}


@dataclass(frozen=True)
class Record:
    """Our record of a file, read and checked.

    layers: stem -> (out_features, rows), as written. embeddings: text encoder -> tensor name.
    grams: index of the packed Grams, None without them.
    """

    concept: Concept
    scheme: Scheme | None
    slot: int | None
    base: str
    layers: Mapping[str, tuple[int, Rows]]
    embeddings: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    grams: Mapping[str, Any] | None = None


def write(lora: BlockLoRA, grams_index: Mapping[str, Any] | None) -> dict[str, str]:
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
        "layers": {stem: _layer_entry(layer) for stem, layer in lora.layers.items()},
        "embeddings": embedding_names(lora),
        "training": dict(lora.training),
        "grams": grams_index,
    }
    try:
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Training configuration: expected plain JSON values, got others: {error}.") from error
    return {**shown_fields(lora), **lora.metadata, KEY: text}


def read(metadata: Mapping[str, str]) -> Record | None:
    """Our record in a file's metadata, None when it has none; ValueError when it is damaged or too new."""
    if KEY not in metadata:
        return None
    data = _parse_object(metadata[KEY])
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


def foreign_concept(metadata: Mapping[str, str], path: PurePath) -> Concept:
    """A name for a LoRA that is not ours: its trigger phrase if that is one word, else its file name."""
    trigger = metadata.get("modelspec.trigger_phrase", "").strip()
    try:
        return Concept(trigger)
    except ValueError:
        return Concept(file_word(path))


def trigger_words(lora: BlockLoRA) -> str:
    """What a prompt needs to call the concept: its name when it was taught one, else the words that its trainer
    recorded, separated by commas. Empty when the file does not tell.
    """
    if _answers_to_name(lora):
        return lora.concept.name
    phrase = lora.metadata.get("modelspec.trigger_phrase", "").strip()
    return phrase or ", ".join(_common_tags(lora.metadata))


def _answers_to_name(lora: BlockLoRA) -> bool:
    return bool(lora.embeddings) or lora.slot is not None


def _common_tags(metadata: Mapping[str, str]) -> list[str]:
    # Tags that at least half as many captions have as have the most common one. Where no tag comes twice, captions
    # are sentences, and say nothing about triggers.
    counts: Counter[str] = Counter()
    for tags in _tag_counts(metadata.get("ss_tag_frequency", "")):
        counts.update({tag.strip(): uses for tag, uses in tags.items() if tag.strip() and isinstance(uses, int)})
    most = max(counts.values(), default=0)
    if most == 1 and len(counts) > 1:
        return []
    return [tag for tag, uses in counts.most_common(_MOST_TAGS) if 2 * uses >= most > 0]


def _tag_counts(text: str) -> list[dict[str, Any]]:
    # Another tool's record, of use only for hints: one that is not sound tells nothing.
    try:
        folders = json.loads(text)
    except ValueError:
        return []
    found = folders.values() if isinstance(folders, dict) else ()
    return [tags for tags in found if isinstance(tags, dict)]


def foreign_base(metadata: Mapping[str, str]) -> str:
    """The base architecture that other trainers' metadata names; empty when unknown."""
    version = metadata.get("ss_base_model_version", "")
    architecture = metadata.get("modelspec.architecture", "").partition("/")[0]
    found = (base for base, names in _BASES.items() if version == names[0] or architecture == names[1])
    return next(found, "")


def shown_fields(lora: BlockLoRA) -> dict[str, str]:
    """The ss_* and modelspec.* fields of `lora`. No dates: the same value gives the same file."""
    fields = dict(_training_fields(lora.training))
    return {**fields, **_kohya_fields(lora), **_modelspec_fields(lora)}


def _family(base: str) -> str:
    """ "sd15" of "sd15-26M": the architecture without the size of an unusual one."""
    return base.partition("-")[0]


def trigger(concept: Concept) -> str:
    """What to write in a prompt."""
    return f"{concept.name} {concept.class_word}".strip()


_DAMAGED = "The file is damaged: download or save it again."


def _record(data: Mapping[str, Any]) -> Record:
    scheme = None if data["scheme"] is None else Scheme.from_dict(data["scheme"])
    slot = data["slot"]
    if (scheme is None) != (slot is None):
        raise ValueError(f"Expected a scheme with a slot, or neither, got {scheme} and slot {slot}. {_DAMAGED}")
    if scheme is not None:
        scheme.check_slot(slot)
    entries = _typed(data, "layers", dict)
    return Record(
        concept=Concept(_typed(data, "concept", str), _typed(data, "class_word", str)),
        scheme=scheme,
        slot=slot,
        base=_typed(data, "base", str),
        layers={stem: (entry["out"], _rows(stem, entry, scheme, slot)) for stem, entry in entries.items()},
        embeddings=_names(data, "embeddings"),
        training=_typed(data, "training", dict),
        grams=None if data["grams"] is None else _typed(data, "grams", dict),
    )


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


def _rows(stem: str, entry: Mapping[str, Any], scheme: Scheme | None, slot: int | None) -> Rows:
    # The rule decides; what the file says is a check that its writer followed the same rule.
    if type(entry["out"]) is not int:
        raise TypeError(f"out of {stem} is {entry['out']!r}")
    rows = rows_of(stem, entry["out"], scheme, slot)
    if entry["rows"] != to_list(rows):
        raise ValueError(
            f"{stem}: expected rows {to_list(rows)}, as slot {slot} gives, got {entry['rows']}. {_DAMAGED}"
        )
    return rows


def rows_of(name: str, out_features: int, scheme: Scheme | None, slot: int | None) -> Rows:
    """Rows that a file's layer holds: its slot's, or all in a plain LoRA."""
    if scheme is None or slot is None:
        return all_rows(out_features)
    return scheme.rows(slot, out_features, keys.parts(name))


def _layer_entry(layer: Layer) -> dict[str, Any]:
    return {"out": layer.out_features, "rows": to_list(layer.rows)}


def _parse_object(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected JSON in the BlockLoRA metadata, got: {error}. {_DAMAGED}") from error
    if not isinstance(data, dict):
        raise ValueError(f"Expected a JSON object in the BlockLoRA metadata, got {type(data).__name__}. {_DAMAGED}")
    return data


def _training_fields(training: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, key in _TRAINING_FIELDS.items():
        if training.get(key) is not None:
            yield name, str(training[key])


def _kohya_fields(lora: BlockLoRA) -> dict[str, str]:
    ranks = [layer.rank for layer in lora.layers.values()]
    alphas = [layer.scale * layer.rank for layer in lora.layers.values()]
    fields = {
        "ss_output_name": lora.concept.bare,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(max(ranks, default=0)),
        "ss_network_alpha": f"{max(alphas, default=0.0):g}",
        "ss_training_comment": _comment(lora),
    }
    if _answers_to_name(lora):
        fields["ss_tag_frequency"] = _json({lora.concept.bare: {trigger(lora.concept): _images(lora)}})
    if lora.base:
        fields["ss_base_model_version"] = _BASES.get(_family(lora.base), (lora.base, ""))[0]
    return fields


def _modelspec_fields(lora: BlockLoRA) -> dict[str, str]:
    fields = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "diffusers",
        "modelspec.title": lora.concept.bare,
    }
    if _answers_to_name(lora):
        fields["modelspec.trigger_phrase"] = trigger(lora.concept)
    if lora.base:
        fields["modelspec.architecture"] = f"{_BASES.get(_family(lora.base), ('', lora.base))[1]}/lora"
    resolution = lora.training.get("resolution")
    if resolution is not None:
        square = isinstance(resolution, int)
        fields["modelspec.resolution"] = f"{resolution}x{resolution}" if square else str(resolution)
    return fields


def _comment(lora: BlockLoRA) -> str:
    if lora.scheme is None:
        return "Plain LoRA saved by ComfyUI-BlockLoRA."
    return f"BlockLoRA: row block {lora.slot} of {lora.scheme.slots} ({lora.scheme.layout})."


def _images(lora: BlockLoRA) -> int:
    images = lora.training.get("images")
    return images if isinstance(images, int) else 1


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def file_word(path: PurePath) -> str:
    """A file's name as one word; its folder's where a tool calls all its files the same."""
    text = path.parent.name if path.stem in _TOOL_NAMES else path.stem
    word = "".join(c if c.isalnum() or c in "-_.+" else "-" for c in text).strip("-")
    return word or "lora"
