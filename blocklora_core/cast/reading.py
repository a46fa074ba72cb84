"""A cast out of a folder of folders, or out of one TOML file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..concept.concept import Concept
from ..concept.rows import MOST_SLOTS
from ..files.untrusted.text import legible
from ..training.data.folder import CONCEPT_FILE
from .member import Cast, CastError, Member
from .settings import KEYS, SettingsReader
from .toml import check_keys, read_toml, texts, typed, wrong

CAST_FILE = "cast.toml"

_TOP = frozenset({"train", "concepts", "together"})
_OWN: Mapping[str, type] = {"name": str, "class_word": str, "words": str, "slot": int, "folder": str}
_REPEATS = re.compile(r"\d{1,4}_")


@dataclass(frozen=True)
class _Source:
    """Where a concept's values came from: file, and what goes before its keys there."""

    path: Path
    values: Mapping[str, Any]


def read_cast(path: Path) -> Cast:
    """The cast in a folder, one folder below it a concept, or in a TOML file that lists its concepts.

    A folder may hold cast.toml, and each concept's concept.toml. What is nearer to the concept goes before: its table
    in cast.toml, its concept.toml, then `[train]` for all. CastError, with the file and the key, for what is none.
    """
    if path.is_dir():
        file = path / CAST_FILE
        table = read_toml(file) if file.is_file() else {}
        return _cast(path, file, table, _folders(path))
    if path.suffix.lower() != ".toml":
        got = "neither" if path.exists() else "nothing there"
        raise CastError(f"{path}: expected a folder of folders with pictures, or a TOML file, got {got}.")
    return _cast(path.parent, path, read_toml(path), {})


def _folders(root: Path) -> dict[str, Path]:
    below = sorted(one for one in root.iterdir() if not one.name.startswith((".", "__")) and one.is_dir())
    found = {_same(one.name): one for one in below}
    if len(found) < len(below):
        twice = next(one.name for one in below if found[_same(one.name)] != one)
        raise CastError(f"{root}: expected folders of different names, got two that read {legible(twice)}. Rename one.")
    return found


def _same(name: str) -> str:
    """A name as other systems write it: macOS takes accents off their letters."""
    return unicodedata.normalize("NFC", name)


def _cast(root: Path, file: Path, table: Mapping[str, Any], folders: Mapping[str, Path]) -> Cast:
    check_keys(file, "", table, _TOP)
    listed = {_same(key): own for key, own in typed(file, "concepts", table.get("concepts", {}), dict).items()}
    shared = typed(file, "train", table.get("train", {}), dict)
    together = tuple(
        tuple(map(_same, texts(file, f"together[{at}]", group)))
        for at, group in enumerate(typed(file, "together", table.get("together", []), list))
    )
    reader = SettingsReader()
    members = []
    for key in sorted({*folders, *listed}):
        own = _Source(file, typed(file, f"concepts.{key}", listed.get(key, {}), dict))
        folder = folders[key] if key in folders else _below(root, file, key, own.values)
        members.append(_member(key, folder, [_Source(file, shared), *_concept_file(folder), own], reader))
    whole = bool(folders) or not listed
    source = (root if whole else file).resolve()
    return Cast(source.name if whole else source.stem, tuple(members), together, source)


def _concept_file(folder: Path) -> Iterator[_Source]:
    file = folder / CONCEPT_FILE
    if file.is_file():
        yield _Source(file, read_toml(file))


def _below(root: Path, file: Path, key: str, values: Mapping[str, Any]) -> Path:
    """The pictures of a concept that the file lists: below the file's folder, wherever a name tries to lead."""
    name = typed(file, f"concepts.{key}.folder", values.get("folder", key), str)
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or ":" in name or "\0" in name:
        raise wrong(file, f"concepts.{key}.folder", "a folder below the file's own", name)
    folder = root.joinpath(*parts)
    if not folder.is_dir():
        raise wrong(file, f"concepts.{key}.folder", "a folder that is there", name)
    return folder


def _member(key: str, folder: Path, sources: list[_Source], reader: SettingsReader) -> Member:
    own: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for source in sources:
        check_keys(source.path, "", source.values, KEYS | _OWN.keys())
        given = [name for name in _OWN if name in source.values]
        own |= {name: typed(source.path, name, source.values[name], _OWN[name]) for name in given}
        settings |= {name: value for name, value in source.values.items() if name not in _OWN}
    path = next(source.path for source in reversed(sources) if source.values or source is sources[0])
    config, run = reader.read(path, settings)
    slot = own.get("slot")
    most = config.adapter.scheme.slots if config.adapter.scheme else MOST_SLOTS
    if slot is not None and not 0 <= slot < most:
        raise wrong(path, "slot", f"a slot from 0 to {most - 1}", slot)
    try:
        return Member(key, _concept(key, own), folder, config, run, own.get("words", "").strip(), slot)
    except ValueError as error:
        if own.keys() & {"name", "class_word"}:
            raise CastError(f"{path}, concept {key}: {error}") from error
        raise CastError(f"Folder {folder}: {error} Or give it a `name` in its {CONCEPT_FILE}.") from error


def _concept(key: str, own: Mapping[str, str]) -> Concept:
    """By its keys, else by the folder's name: `amelia girl`, or kohya's `10_amelia girl`."""
    name, _, rest = _REPEATS.sub("", key.strip(), count=1).partition(" ")
    return Concept(own.get("name", f"<{name.strip('<>')}>").strip(), own.get("class_word", rest).strip())
