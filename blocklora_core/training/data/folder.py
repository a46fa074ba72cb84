"""What lies in a folder of training pictures: pictures, captions, masks, side files, and what is none of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

MASK_SUFFIX = "-masklabel.png"
"""hero.jpg's mask is hero-masklabel.png, as other trainers have it: white where the concept is."""

CAPTIONS = (".txt", ".caption")
"""Endings of caption files, the first that is there counts: a.txt, a.caption, a.png.txt, a.png.caption."""

# Formats of pictures of pixels. Pillow knows more: EPS is a program that it gives to Ghostscript, IPTC holds a picture
# of any other format, and bytes decide what is opened, whatever a file is called.
_FORMATS = {
    "AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "JXL", "MPO", "PCX", "PNG", "PPM",
    "PSD", "QOI", "SGI", "TGA", "TIFF", "WEBP",
}  # fmt: skip

CONCEPT_FILE = "concept.toml"
"""What a cast's concept is called, and its settings: see `cast.reading`."""

# What systems and programs leave beside pictures, and what a cast puts there.
_SIDE_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", CONCEPT_FILE})

_REPEATED = re.compile(r"(\d{1,4})_(.+)")


@dataclass(frozen=True)
class Picture:
    """path; caption: its file, None without one. repeats: how often it counts. words: what its folder says it shows,
    where that is one of kohya's, such as "10_ohwx man". found_mask: its file, None without one."""

    path: Path
    caption: Path | None
    repeats: int = 1
    words: str = ""
    found_mask: Path | None = None

    @property
    def mask(self) -> Path:
        """Where its mask lies, if there is one."""
        return self.found_mask or self.path.with_name(_mask_name(self.path))


@dataclass(frozen=True)
class Listing:
    """pictures: in the order of their folders' and their own names. skipped: files that are no part of a set, and
    captions and masks of no picture, relative to the folder."""

    pictures: tuple[Picture, ...]
    skipped: tuple[str, ...]


@lru_cache(maxsize=1)
def formats() -> tuple[str, ...]:
    """Formats, by Pillow's names, that may be opened and that this Pillow reads."""
    Image.init()
    return tuple(sorted(_FORMATS & Image.OPEN.keys()))


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """Endings, small letters, of all pictures that this Pillow reads."""
    return frozenset(suffix for suffix, form in Image.registered_extensions().items() if form in formats())


def is_picture(name: str) -> bool:
    """Whether a file of this name is a training picture."""
    lower = name.lower()
    return not _is_side_file(name) and not lower.endswith(MASK_SUFFIX) and Path(lower).suffix in suffixes()


def is_repeated(folder: Path) -> bool:
    """Whether a folder is one of kohya's, named by repeats and class."""
    return _REPEATED.fullmatch(folder.name) is not None


def listing(folder: Path) -> Listing:
    """The pictures in `folder`, and, as kohya's trainers read them, in the folders named `10_name class` below it."""
    names = {path.name: path for path in sorted(folder.iterdir())}
    own = _REPEATED.fullmatch(folder.name)
    parts = [_of_one(folder, names, 1, own[2] if own else "")]
    for path in names.values():
        match = _REPEATED.fullmatch(path.name)
        if match and path.is_dir():
            inner = {file.name: file for file in sorted(path.iterdir())}
            parts.append(_of_one(folder, inner, int(match[1]), match[2]))
    return Listing(
        tuple(picture for part in parts for picture in part.pictures),
        tuple(name for part in parts for name in part.skipped),
    )


def _of_one(root: Path, names: Mapping[str, Path], repeats: int, words: str) -> Listing:
    lower = {name.lower(): path for name, path in names.items()}
    pictures = []
    for name, path in names.items():
        if is_picture(name) and not path.is_dir():
            caption, mask = (_first(wanted, names, lower) for wanted in (_caption_names(path), [_mask_name(path)]))
            pictures.append(Picture(path, caption, repeats, words, mask))
    used = {file for picture in pictures for file in (picture.path, picture.caption, picture.found_mask)}
    left = (path for name, path in names.items() if path not in used and _counts(name, path))
    return Listing(tuple(pictures), tuple(path.relative_to(root).as_posix() for path in left))


def _counts(name: str, path: Path) -> bool:
    """Whether a file that is no part of a picture is worth a word."""
    return not (_is_side_file(name) or path.is_dir())


def _is_side_file(name: str) -> bool:
    # macOS keeps what it knows of a.png in ._a.png.
    return name.startswith(".") or name.lower() in _SIDE_FILES


def _first(wanted: Iterable[str], names: Mapping[str, Path], lower: Mapping[str, Path]) -> Path | None:
    """The first that is there, in the very letters or in others of upper and lower case."""
    for name in wanted:
        found = names.get(name) or lower.get(name.lower())
        if found is not None and not found.is_dir():
            return found
    return None


def _mask_name(path: Path) -> str:
    return f"{path.stem}{MASK_SUFFIX}"


def _caption_names(path: Path) -> Iterator[str]:
    for start in (path.stem, path.name):
        yield from (f"{start}{suffix}" for suffix in CAPTIONS)
