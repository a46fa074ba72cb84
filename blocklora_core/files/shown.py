"""The fields that LoRA managers show (ss_*, modelspec.*): written into our files, read from those of others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from ..concept import bases
from ..concept.concept import BlockLoRA, Concept
from .untrusted.json_text import parse_json
from .untrusted.text import words

NOTE = "blocklora.import_note"
"""Key in BlockLoRA.metadata: what the import of another tool's file could not keep."""

FROM_FILE, FROM_USER, FROM_FILE_NAME = "the file", "your list", "the file's name"
"""Who may tell what calls a concept."""

_USER_WORDS = "blocklora.words"

_MOST_TAGS = 5
_MOST_LETTERS = 100

# What PEFT and diffusers call every file that they save.
_TOOL_NAMES = frozenset({"adapter_model", "pytorch_lora_weights"})

# Where trainers name the base, the most telling first.
_BASE_FIELDS = ("ss_base_model_version", "modelspec.architecture", "base_model")

# Field that LoRA managers show -> key in BlockLoRA.training.
_TRAINING_FIELDS: Mapping[str, str] = {
    "ss_num_train_images": "images",
    "ss_max_train_steps": "steps",
    "ss_steps": "steps_done",
    "ss_learning_rate": "learning_rate",
    "ss_unet_lr": "learning_rate",
    "ss_text_encoder_lr": "text_learning_rate",
    "ss_seed": "seed",
    "ss_total_batch_size": "batch_size",
    "ss_resolution": "resolution",
    "ss_noise_offset": "noise_offset",
    "ss_optimizer": "optimizer",
    "ss_lr_scheduler": "scheduler",
}


def foreign_concept(metadata: Mapping[str, str], path: PurePath) -> Concept:
    """A name for a LoRA that is not ours: its trigger phrase if that is one word, else its file name."""
    trigger = metadata.get("modelspec.trigger_phrase", "").strip()
    try:
        return Concept(trigger)
    except ValueError:
        return Concept(file_word(path))


def trigger_words(lora: BlockLoRA) -> str:
    """What a prompt needs to call the concept: its name when it was taught one, else the words that its trainer
    recorded, separated by commas, else those that the user gave. Empty when nobody tells.
    """
    return next((said for source, said in called_by(lora).items() if source != FROM_FILE_NAME), "")


def calling_phrases(lora: BlockLoRA) -> list[str]:
    """The words and phrases that call the concept, as file and user tell; none where neither does."""
    told = (said for source, said in called_by(lora).items() if source != FROM_FILE_NAME)
    return [phrase.strip() for said in told for phrase in said.split(",") if phrase.strip()]


def called_by(lora: BlockLoRA) -> dict[str, str]:
    """Who tells what calls the concept -> the words: the file, the user, and the file's name where neither does."""
    if _answers_to_name(lora):
        return {FROM_FILE: lora.concept.name}
    told = {
        FROM_FILE: words(recorded_words(lora.metadata)),
        FROM_USER: words(lora.metadata.get(_USER_WORDS, "")),
    }
    return {source: said for source, said in told.items() if said} or {FROM_FILE_NAME: lora.concept.name}


def recorded_words(metadata: Mapping[str, str]) -> str:
    """The words that a trainer recorded, separated by commas; empty where it did not."""
    return metadata.get("modelspec.trigger_phrase", "").strip() or ", ".join(_common_tags(metadata))


def with_words(lora: BlockLoRA, said: str) -> BlockLoRA:
    """`lora` with what the user says calls it."""
    return lora.with_metadata({**lora.metadata, _USER_WORDS: said})


def unheard_note(lora: BlockLoRA, said: str) -> str:
    """What to tell where the user's words do not call the concept, as it has a name of its own; else empty."""
    return unheard(lora.concept.name, said) if _answers_to_name(lora) else ""


def unheard(name: str, said: str) -> str:
    """`unheard_note` of a concept that answers to `name` alone, which is what the user said where that renames it."""
    if said in ("", name):
        return ""
    return f"Prompts call it {name}: words are for plain LoRAs. One word, such as <ada>, gives it another name."


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
        folders = parse_json(text)
    except ValueError:
        return []
    found = folders.values() if isinstance(folders, dict) else ()
    return [tags for tags in found if isinstance(tags, dict)]


def foreign_base(metadata: Mapping[str, str]) -> str:
    """The base architecture that other trainers' metadata names; empty when unknown."""
    found = (bases.known_as(metadata[field].partition("/")[0]) for field in _BASE_FIELDS if field in metadata)
    return next(filter(None, found), "")


def shown_fields(lora: BlockLoRA) -> dict[str, str]:
    """The ss_* and modelspec.* fields of `lora`. No dates: the same value gives the same file."""
    fields = dict(_training_fields(lora.training))
    return {**fields, **_kohya_fields(lora), **_modelspec_fields(lora)}


def trigger(concept: Concept) -> str:
    """What to write in a prompt."""
    return f"{concept.name} {concept.class_word}".strip()


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
        fields["ss_base_model_version"] = bases.fields(lora.base)[0]
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
        fields["modelspec.architecture"] = f"{bases.fields(lora.base)[1]}/lora"
    resolution = lora.training.get("resolution")
    if resolution is not None:
        square = isinstance(resolution, int)
        fields["modelspec.resolution"] = f"{resolution}x{resolution}" if square else str(resolution)
    return fields


def _comment(lora: BlockLoRA) -> str:
    if lora.scheme is None:
        return "Plain LoRA saved by ComfyUI-BlockLoRA."
    return f"BlockLoRA: row block {lora.slot} of {lora.scheme.slots} (contiguous)."


def _images(lora: BlockLoRA) -> int:
    images = lora.training.get("images")
    return images if isinstance(images, int) else 1


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def file_word(path: PurePath) -> str:
    """A file's name as one word; its folder's where a tool calls all its files the same."""
    text = path.parent.name if path.stem in _TOOL_NAMES else path.stem
    return _joined(text)


def word(text: str) -> str:
    """`text` where a prompt can hold it as a name, else as much of it as can be one word."""
    try:
        return Concept(text).name
    except ValueError:
        found = _joined(text.strip().removeprefix("<").removesuffix(">"))
        return f"<{found}>" if text.strip().startswith("<") else found


def _joined(text: str) -> str:
    found = "".join(c if c.isalnum() or c in "-_.+" else "-" for c in text[:_MOST_LETTERS]).strip("-.")
    return found or "lora"
