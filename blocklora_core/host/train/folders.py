"""Folders of pictures with captions, below ComfyUI's input folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import folder_paths
import torch

from ...files.untrusted.folders import walk
from ...files.untrusted.header import read_whole
from ...files.untrusted.text import legible
from ...reports.words import counted
from ...training.data.folder import CAPTIONS, Listing, Picture, is_picture, is_repeated, listing
from ...training.data.photos import read_mask, read_photo
from ..interrupt import check_cancel

# So many files of a kind are named in the report.
_NAMED = 5

MOST_CAPTION = 2**16
"""Bytes of a caption."""


class PictureSet(NamedTuple):
    """Pictures (1, H, W, 3), a caption and a mask (1, H, W) for each; report: what was read and what not."""

    pictures: list[torch.Tensor]
    captions: list[str]
    masks: list[torch.Tensor]
    report: str


def picture_folders() -> list[str]:
    """Folders below the input folder that hold pictures, or kohya's folders of them, relative, with forward slashes."""
    root = Path(folder_paths.get_input_directory())
    found = set[Path]()
    for folder, names in walk(root, _enters):
        if folder != root and any(map(is_picture, names)):
            found.add(folder)
            if is_repeated(folder) and folder.parent != root:
                found.add(folder.parent)
    return sorted(folder.relative_to(root).as_posix() for folder in found)


def _enters(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def picture_folder(name: str) -> Path:
    """The folder `name` below the input folder. ValueError when there is none."""
    root = Path(os.path.normpath(folder_paths.get_input_directory()))
    path = Path(os.path.normpath(root / name))
    # Links that the user put into the input folder lead where they lead; names do not.
    if "\0" in name or not path.is_relative_to(root) or not path.is_dir():
        raise ValueError(
            f"Picture folder: expected a folder below ComfyUI's input folder, got {name!r}, which is none. Choose "
            "another, or drop pictures onto Images + Captions."
        )
    return path


def folder_hash(name: str) -> str:
    """Changes when a picture or caption in the folder does, or in a folder of kohya's below it."""
    folder = picture_folder(name)
    state = hashlib.sha256()
    below = [path for path in folder.iterdir() if path.is_dir() and is_repeated(path)]
    for path in sorted(path for one in (folder, *below) for path in one.iterdir()):
        entry = path.lstat() if path.is_symlink() and not path.exists() else path.stat()
        state.update(os.fsencode(path.relative_to(folder)) + f" {entry.st_size} {entry.st_mtime_ns}\n".encode())
    return state.hexdigest()


def read_pictures(name: str, default_caption: str) -> PictureSet:
    """Pictures of a folder in the order of their names, captions and masks.

    Folders named `10_name class` below it count as kohya's trainers count them: so often is each of their pictures
    there. An empty caption file, which a page leaves where a caption was cleared, is none. ValueError when there is no
    picture.
    """
    return read_folder(picture_folder(name), name, default_caption)


def read_folder(folder: Path, name: str, default_caption: str) -> PictureSet:
    """As `read_pictures`, of a folder anywhere, which messages call `name`."""
    found = listing(folder)
    if not any(picture.repeats for picture in found.pictures):
        raise _none(folder, name)
    pictures, captions, masks = list[torch.Tensor](), list[str](), list[torch.Tensor]()
    captioned, empty = 0, list[str]()
    for picture in found.pictures:
        check_cancel()
        photo, mask = _read(picture)
        own = caption_text(picture.caption) if picture.caption else ""
        captioned += bool(own)
        empty += [] if mask.any() else [picture.path.name]
        pictures += [photo] * picture.repeats
        captions += [own or default_caption or picture.words] * picture.repeats
        masks += [mask] * picture.repeats
    return PictureSet(pictures, captions, masks, _report(found, captioned, empty))


def _none(folder: Path, name: str) -> ValueError:
    below = [
        path.relative_to(folder).as_posix() for path, names in walk(folder, _enters) if any(map(is_picture, names))
    ]
    if below:
        return ValueError(
            f"Picture folder {name!r}: expected pictures, found none in it but some below it: {', '.join(below[:5])}. "
            "Choose one of these, or name them as kohya's trainers do, such as 10_hero man."
        )
    files = sorted(legible(path.name) for path in folder.iterdir() if path.is_file())
    others = f", only {', '.join(files[:_NAMED])}" if files else ""
    return ValueError(
        f"Picture folder {name!r}: expected pictures such as PNG, JPEG, WebP, AVIF or TIFF, found none{others}. "
        "Convert them, or choose another folder."
    )


def _read(picture: Picture) -> tuple[torch.Tensor, torch.Tensor]:
    colours, mask = read_photo(picture.path)
    if picture.mask.is_file():
        mask = read_mask(picture.mask, picture.path)
    return torch.from_numpy(colours)[None], torch.from_numpy(mask)[None]


def caption_text(path: Path) -> str:
    """The caption in a file. ValueError when it is none."""
    try:
        return read_whole(path, MOST_CAPTION).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"Caption {path.name}: expected UTF-8 text, got other bytes. Save it as UTF-8.") from error


def _report(found: Listing, captioned: int, empty: list[str]) -> str:
    pictures, skipped = found.pictures, found.skipped
    lines = [f"{counted(len(pictures), 'picture')}, {captioned} with a caption of their own"]
    repeated = sum(picture.repeats for picture in pictures)
    if repeated != len(pictures):
        lines[0] += f", {repeated} with the repeats of their folders"
    if empty:
        lines.append(f"Empty masks, which Train refuses: {_named(empty)}")
    if skipped:
        kinds = " nor ".join(("pictures that can be read", f"captions of one ({', '.join(CAPTIONS)})"))
        lines.append(f"{len(skipped)} files skipped, neither {kinds}: {_named(skipped)}")
    return "\n".join(lines)


def _named(files: Sequence[str]) -> str:
    named, more = ", ".join(map(legible, files[:_NAMED])), len(files) - _NAMED
    return f"{named} and {more} more" if more > 0 else named
