"""Translations of nodes: one table a language, keyed by the English text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .kinds import Info, inputs_of

WORDS = Path(__file__).parent / "words"
LANGUAGES = ("zh", "ja", "ko", "de", "fr", "es")
MENU = ("Train", "Use", "Regions", "Study")
SOCKETS = {
    "BLOCK_LORA_STACK": "concepts",
    "BLOCK_LORA_TRAIN_SETTINGS": "training settings",
    "BLOCKLORA_REFERENCES": "references",
    "BLOCKLORA_REGIONS": "regions",
    "BLOCKLORA_COMPOSER_OPTIONS": "Composer options",
}
"""Our types -> what they are called."""

EXPLAINED = frozenset(
    f"BlockLoRA{name}"
    for name in (
        "Train", "Images", "Load", "Loader", "Stack", "Merge", "Save", "Scene", "Region", "RegionalSampling", "Inspect",
        "Export", "Slots",
    )
)  # fmt: skip
"""Nodes whose tooltips are translated; of the others, names and descriptions are."""

NEWER = ("BOUNDING_BOX",)
"""Inputs that only some hosts have: they stay English, so that the files are the same everywhere."""

_NUMBERED = re.compile(r"(.*) (\d+)")
_HOSTS = frozenset(
    ("MODEL", "CLIP", "VAE", "IMAGE", "LATENT", "CLIP_VISION", "CONDITIONING", "clip", "vae", "model", "json")
)
"""Names that are alike in every language."""

Words = Mapping[str, str]


@cache
def words(language: str) -> dict[str, str]:
    """English text -> its translation."""
    found: dict[str, str] = json.loads((WORDS / f"{language}.json").read_text(encoding="utf-8"))
    return found


def ours(info: Info) -> dict[str, Any]:
    """The nodes of this pack, by type."""
    return {name: told for name, told in info.items() if name.startswith("BlockLoRA")}


def needed(info: Info) -> set[str]:
    """All English texts that every language must have."""
    found = {*MENU, *SOCKETS.values()}
    for name, told in ours(info).items():
        found |= {told["display_name"], told["description"]}
        for text, tooltip in _entries(told):
            numbered = _NUMBERED.fullmatch(text)
            found |= {numbered[1] if numbered else text}
            found |= {tooltip} if name in EXPLAINED else set()
    return found - _HOSTS - {""}


def locales(info: Info) -> Iterator[tuple[str, Any]]:
    """(path below the pack's root, content) of every file. Texts that a table lacks are left to the English."""
    yield "locales/en/nodeDefs.json", _node_defs(info, {})
    for language in LANGUAGES:
        table = words(language)
        yield f"locales/{language}/nodeDefs.json", _node_defs(info, table)
        yield f"locales/{language}/main.json", _main(table)


def _main(table: Words) -> dict[str, Any]:
    named = {name: table[text] for name, text in SOCKETS.items() if text in table}
    return {"nodeCategories": {name: table[name] for name in MENU if name in table}, "dataTypes": named}


def _node_defs(info: Info, table: Words) -> dict[str, Any]:
    return {name: _node(told, table) for name, told in sorted(ours(info).items())}


def _node(told: Info, table: Words) -> dict[str, Any]:
    made = {key: table[told[key]] for key in ("display_name", "description") if told[key] in table}
    inputs = {name: _slot(plain(name), tooltip, table) for name, tooltip in _inputs(told)}
    outputs = {str(number): _slot(name, tooltip, table) for number, (name, tooltip) in enumerate(_outputs(told))}
    return made | {
        key: filled for key, value in (("inputs", inputs), ("outputs", outputs)) if (filled := _filled(value))
    }


def _filled(slots: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return {name: slot for name, slot in slots.items() if slot}


def _slot(text: str, tooltip: str, table: Words) -> dict[str, str]:
    numbered = _NUMBERED.fullmatch(text)
    name = f"{table.get(numbered[1], numbered[1])} {numbered[2]}" if numbered else table.get(text, text)
    made = {"name": name} if text not in _HOSTS else {}
    return made | ({"tooltip": table[tooltip]} if tooltip in table else {})


def plain(name: str) -> str:
    """What an input or output is called where people read it."""
    return name.replace("_", " ")


def _entries(told: Info) -> Iterator[tuple[str, str]]:
    for name, tooltip in _inputs(told):
        yield plain(name), tooltip
    yield from _outputs(told)


def _inputs(told: Info) -> Iterator[tuple[str, str]]:
    for name, kind, options in inputs_of(told):
        if kind not in NEWER:
            yield name, options.get("tooltip", "")


def _outputs(told: Info) -> Iterator[tuple[str, str]]:
    tooltips = told.get("output_tooltips") or [""] * len(told["output_name"])
    for name, tooltip in zip(told["output_name"], tooltips, strict=True):
        yield plain(name), tooltip or ""
