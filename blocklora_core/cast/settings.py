"""Settings of a training by flat name, out of a file: Train's inputs and those of Train Settings, and no others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..concept.rows import Scheme
from ..training import ADAPTERS, PRESETS, TrainConfig, TrainSettings
from ..training.data.captions import CaptionRules
from ..training.regularisers.erasure import Erasure
from .member import CastError, RunSettings
from .toml import check_keys, texts, typed, wrong

Given = Mapping[str, Any]
Ready = tuple[TrainConfig, RunSettings]

_HIDDEN = frozenset({"scheme", "slot", "orthogonal", "erasure", "captions"})
"""Of TrainConfig's flat names: said in other words here, or dealt by the cast."""

_CALLED = {"niche_weight": "niche"}
_NAMES = {name: _CALLED.get(name, name) for name in TrainConfig().flat() if name not in _HIDDEN}
"""Flat name of TrainConfig -> what Train calls it."""

_DEFAULTS = {_NAMES[name]: value for name, value in TrainConfig().flat().items() if name in _NAMES}
_ERASURE = {"erasure": "probability", "erasure_per_sample": "per_sample", "erasure_rescale": "rescale"}
_CAPTIONS = {f"caption_{field.name}": field.name for field in dataclasses.fields(CaptionRules)}
_RUN = {field.name: field.default for field in dataclasses.fields(RunSettings)}
_CHOICES: Mapping[str, Mapping[str, Any]] = {"adapter": ADAPTERS, "preset": PRESETS}

KEYS = frozenset({*_DEFAULTS, *_ERASURE, *_CAPTIONS, *_RUN, *_CHOICES, "slots"})
"""Every setting that a cast's files may hold."""


class SettingsReader:
    """Settings of many concepts, most of which are alike: those are made once."""

    def __init__(self) -> None:
        self._made: dict[str, Ready] = {}

    def read(self, path: Path, given: Given) -> Ready:
        """`given`: by flat name. CastError, with the file and the key, for a name, type or value that is none."""
        key = json.dumps(given, sort_keys=True, default=str)
        if key not in self._made:
            self._made[key] = _ready(path, given)
        return self._made[key]


def _ready(path: Path, given: Given) -> Ready:
    check_keys(path, "", given, KEYS)
    checked = {name: _checked(path, name, value) for name, value in given.items()}
    of = _of(checked)
    try:
        erasure, captions = Erasure(**of(_ERASURE)), CaptionRules(**of(_CAPTIONS))
        config = TrainConfig.of(erasure=erasure, captions=captions, **ADAPTERS[checked.get("adapter", "row block")])
        config = PRESETS[checked["preset"]].apply(config) if "preset" in checked else config
        plain = {flat: checked[name] for flat, name in _NAMES.items() if name in checked}
        if "slots" in checked:
            plain["scheme"] = Scheme(slots=checked["slots"])
        return TrainSettings(plain).apply(config), RunSettings(**{name: checked.get(name, _RUN[name]) for name in _RUN})
    except ValueError as error:
        raise CastError(f"{path}, key {_named(str(error), given)}: {error}") from error


def _of(checked: Given) -> Callable[[Mapping[str, str]], dict[str, Any]]:
    return lambda names: {field: checked[name] for name, field in names.items() if name in checked}


def _named(message: str, given: Given) -> str:
    """The setting that `message` speaks of, else all that were given."""
    start = message.partition(":")[0].lower().replace(" ", "_")
    return start if start in given else ", ".join(sorted(given))


def _checked(path: Path, name: str, value: object) -> Any:
    if name in _CHOICES:
        if value not in list(_CHOICES[name]):
            raise wrong(path, name, f"one of {', '.join(_CHOICES[name])}", value)
        return value
    default = _default(name)
    return texts(path, name, value) if isinstance(default, tuple) else typed(path, name, value, type(default))


def _default(name: str) -> Any:
    if name in _ERASURE:
        return getattr(Erasure(), _ERASURE[name])
    if name in _CAPTIONS:
        return getattr(CaptionRules(), _CAPTIONS[name])
    return 16 if name == "slots" else {**_DEFAULTS, **_RUN}[name]
