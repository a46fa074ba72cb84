"""`run.py demo --base CHECKPOINT --pictures FOLDER FOLDER`: the demo's graph on what its user has."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import LauncherError
from .workflow import Graph

DEMO_SIDE = 128
"""Pixels: how large the demo's base paints."""
WORD = "person"
PICTURES = "blocklora_own"
"""Folder below ComfyUI's input folder that the pictures are copied into."""
GUIDANCE = 7.0
IMAGES, TRAIN = "BlockLoRAImages", "BlockLoRATrain"
DRAWN = "personas "
"""The demo's base's word for how its people are drawn; others do not know it."""
CAPTIONS = (".txt", ".caption")
SIDES = range(64, 4097, 8)
KEPT = ("concept", "class_word", "seed")
"""What the demo's graph says to Train; with another base everything else becomes what the node begins with."""


@dataclass(frozen=True)
class Concept:
    """A folder of pictures, the name to teach, without brackets, and the class word."""

    folder: Path
    name: str
    word: str


@dataclass(frozen=True)
class Own:
    """What a user puts in the place of the demo's checkpoint and pictures; None and nothing keep the demo's."""

    base: Path | None = None
    concepts: tuple[Concept, ...] = ()
    side: int = 512

    def server_arguments(self, home: Path) -> list[str]:
        """ComfyUI's arguments with which it finds the checkpoint."""
        if self.base is None:
            return []
        paths = home / "own_paths.yaml"
        # JSON is YAML.
        found = {"own": {"checkpoints": str(self.base.resolve().parent), "is_default": True}}
        paths.write_text(json.dumps(found), "utf-8")
        return ["--extra-model-paths-config", str(paths)]

    def copy_pictures(self, input_folder: Path) -> None:
        """Each concept's pictures into a folder of its own below ComfyUI's input folder, as they are now.

        Captions that were written there since stay. Raises LauncherError for a folder around that one, or within it: it
        would be copied into itself, or removed.
        """
        for concept in self.concepts:
            source, target = concept.folder.resolve(), (input_folder / PICTURES / concept.name).resolve()
            if source == target:
                continue
            if target.is_relative_to(source) or source.is_relative_to(target):
                raise LauncherError(f"--pictures: expected a folder outside of {target}, got {source}.")
            for old in (path for path in target.rglob("*") if path.is_file() and path.suffix.lower() not in CAPTIONS):
                if not (source / old.relative_to(target)).is_file():
                    old.unlink()
            shutil.copytree(source, target, copy_function=_copy, dirs_exist_ok=True)

    def graph(self, demo: Graph, settings: Mapping[str, Any]) -> Graph:
        """The demo's graph with what is told here in place of its own; `settings` are what Train begins with."""
        trained = [node["inputs"]["concept"].strip("<>") for node in _of(demo, TRAIN)]
        made: Graph = json.loads(_renamed(json.dumps(demo), trained, [concept.name for concept in self.concepts]))
        for node, concept in zip(_of(made, IMAGES), self.concepts, strict=False):
            node["inputs"]["folder"] = f"{PICTURES}/{concept.name}"
        for node, concept in zip(_of(made, TRAIN), self.concepts, strict=False):
            node["inputs"]["class_word"] = concept.word
        if self.base:
            _put_on(made, self.base.name, self.side, settings)
        return made


def own(base: Path | None, pictures: Sequence[str], side: int | None = None) -> Own:
    """Checked: a checkpoint that is there, a side that it can paint, no or two folders `FOLDER` or `FOLDER=CLASS WORD`.

    Raises LauncherError for anything else.
    """
    if base and not base.is_file():
        raise LauncherError(f"--base: expected a checkpoint file, got {base}, which is none.")
    if side is not None and not base:
        raise LauncherError(f"--side: the demo's base paints {DEMO_SIDE} pixels; it is for a --base of your own.")
    if side is not None and side not in SIDES:
        raise LauncherError(f"--side: expected a multiple of 8 from {SIDES[0]} to {SIDES[-1]}, got {side}.")
    if len(pictures) not in (0, 2):
        raise LauncherError(
            f"--pictures: the demo's graph trains two concepts, got {len(pictures)} folders. More at once, each with "
            "settings of its own: python -m blocklora_core cast (docs/cast.md)."
        )
    concepts = tuple(_concept(text) for text in pictures)
    if len({concept.name for concept in concepts}) < len(concepts):
        raise LauncherError(f"--pictures: both folders would be called <{concepts[0].name}>; rename one.")
    return Own(base, concepts, side or Own.side)


def _copy(source: str, target: str) -> None:
    """A caption that is newer where it is copied to stays."""
    new, old = Path(source), Path(target)
    if new.suffix.lower() in CAPTIONS and old.is_file() and old.stat().st_mtime > new.stat().st_mtime:
        return
    shutil.copy2(new, old)


def settings_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """What a node's inputs begin with, from its entry in /object_info."""
    entries = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    options = {name: entry[1] for name, entry in entries.items() if len(entry) > 1}
    return {name: said["default"] for name, said in options.items() if "default" in said}


def _concept(text: str) -> Concept:
    path, _, word = text.partition("=")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise LauncherError(f"--pictures: expected a folder, got {folder}, which is none.")
    name = re.sub(r"\W+", "_", folder.resolve().name.lower()).strip("_")
    if not name or not name[0].isalpha():
        name = f"c_{name}".rstrip("_")
    return Concept(folder, name, word.strip() or WORD)


def _renamed(graph: str, before: Sequence[str], after: Sequence[str]) -> str:
    names = dict(zip(before, after, strict=False))
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), graph)


def _put_on(graph: Graph, checkpoint: str, side: int, settings: Mapping[str, Any]) -> None:
    # What is larger need not be enlarged to be seen: 0 leaves pictures as they are.
    for node in _of(graph, "ImageScale"):
        node["inputs"].update(width=0, height=0)
    for node in _of(graph, "EmptyLatentImage"):
        node["inputs"].update({length: node["inputs"][length] * side // DEMO_SIDE for length in ("width", "height")})
    for node in _of(graph, "CLIPTextEncode"):
        node["inputs"]["text"] = node["inputs"]["text"].replace(DRAWN, "")
    for node in _of(graph, "CheckpointLoaderSimple"):
        node["inputs"]["ckpt_name"] = checkpoint
    for node in _of(graph, "KSampler"):
        node["inputs"]["cfg"] = GUIDANCE
    for node in _of(graph, TRAIN):
        linked = {name for name, value in node["inputs"].items() if isinstance(value, list)}
        node["inputs"].update({n: settings[n] for n in node["inputs"].keys() & settings.keys() - linked - {*KEPT}})
        node["inputs"]["resolution"] = side


def _of(graph: Graph, kind: str) -> list[dict[str, Any]]:
    return [node for node in graph.values() if node["class_type"] == kind]
