"""Picture files as arrays of numbers, whatever their format, scaled down as they are read."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ...files.untrusted.header import FileError, read_whole
from .folder import formats

MOST_PIXELS = 2**21
"""Of a picture once it is read: trainings take at most about a million. Larger ones are scaled down."""

MOST_STORED_PIXELS = 2**26
"""Of a picture in its file, which takes up to a gigabyte to read."""

# JPEG is scaled while it is read; of these others, Pillow has several copies at a time.
_MOST_OF: Mapping[str | None, int] = {"JPEG": 2**27, "MPO": 2**27, "WEBP": 2**25, "AVIF": 2**25}

Pixels = npt.NDArray[np.float32]

MOST_BYTES = 2**30
"""Of a picture's file."""

_PNG = b"\x89PNG\r\n\x1a\n"

# Texts and profiles, of which Pillow refuses long ones, and which are not looked at.
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})

_TURNED = frozenset({5, 6, 7, 8})
_ORIENTATION = 0x0112


def read_photo(path: Path) -> tuple[Pixels, Pixels]:
    """Colours (H, W, 3), transparent pixels white, and what is not transparent (H, W), both in [0, 1]; upright.

    ValueError, which names the file, for one that is no sound picture.
    """
    return _guarded(path, _colours)


def read_mask(path: Path, of: Path) -> Pixels:
    """A mask (H, W) in [0, 1], as large as `read_photo` gives the picture `of`. ValueError as there, and when their
    files are not of one size."""
    expected, given = _guarded(of, _upright_size), _guarded(path, _upright_size)
    if expected != given:
        raise ValueError(f"Mask {path.name}: expected the size of {of.name}, {expected}, got {given}.")
    return _guarded(path, _grey)


def photo_size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture in its file. ValueError as in `read_photo`."""
    width, height = _guarded(path, _upright_size)
    return width, height


def _guarded(path: Path, read: Any) -> Any:
    data = read_whole(path, MOST_BYTES)
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(_without_texts(data)), formats=formats()) as file:
            warnings.simplefilter("ignore")  # Pillow's about large or odd pictures: they are read or refused here
            most = MOST_STORED_PIXELS if file.mode == "CMYK" else _MOST_OF.get(file.format, MOST_STORED_PIXELS)
            if file.width * file.height > most:
                raise ValueError(f"{file.width} x {file.height} pixels, more than {most}; make it smaller")
            return read(file)
    except Exception as error:  # whatever Pillow makes of the file
        raise FileError(f"Picture {path.name}: expected a readable picture, got: {error}.") from error


def _without_texts(data: bytes) -> bytes:
    """A PNG's bytes without chunks of text; any other file's as they are."""
    if not data.startswith(_PNG):
        return data
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if data[at + 4 : at + 8] not in _TEXTS:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _upright_size(file: Image.Image) -> tuple[int, int]:
    turned = file.getexif().get(_ORIENTATION) in _TURNED
    return (file.height, file.width) if turned else (file.width, file.height)


def _colours(file: Image.Image) -> tuple[Pixels, Pixels]:
    deep = _deep(file)
    if deep is not None:
        return np.repeat(deep[:, :, None], 3, axis=2), np.ones_like(deep)
    picture = _small(file, "RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    return _numbers(Image.alpha_composite(ground, picture).convert("RGB")), _numbers(picture.getchannel("A"))


def _grey(file: Image.Image) -> Pixels:
    deep = _deep(file)
    return _numbers(_small(file, "L")) if deep is None else deep


def _small(file: Image.Image, mode: str) -> Image.Image:
    size = _size_of(file)
    picture = file
    if file.mode in ("RGB", "L", "CMYK", "YCbCr") and "transparency" not in file.info:
        # JPEG is scaled while it is read; what is scaled before it is converted takes less memory.
        file.draft(file.mode, size)
        picture = _scaled(file, size)
    return _turned(_scaled(picture.convert(mode), size), file)


def _turned(picture: Image.Image, file: Image.Image) -> Image.Image:
    """`picture` upright, as the file that it was read from says."""
    picture.getexif()[_ORIENTATION] = file.getexif().get(_ORIENTATION, 1)
    return ImageOps.exif_transpose(picture)


def _scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _size_of(picture: Image.Image) -> tuple[int, int]:
    factor = min((MOST_PIXELS / (picture.width * picture.height)) ** 0.5, 1.0)
    return max(int(picture.width * factor), 1), max(int(picture.height * factor), 1)


def _deep(file: Image.Image) -> Pixels | None:
    """Grey of more than 8 bits (H, W); None for other pictures. Pillow would cut such numbers off at 255."""
    if not file.mode.startswith(("I", "F")):
        return None
    size = _size_of(file)
    numbers = np.asarray(file).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError("numbers that are not finite; save it again")
    most = float(numbers.max(initial=0))
    whole = 1.0 if file.mode == "F" and most <= 1 else 255.0 if file.mode == "F" and most <= 255 else 65535.0
    # In place: a file of a few kilobytes may hold 67 million of them.
    numbers /= whole
    picture = _scaled(Image.fromarray(numbers.clip(0, 1, out=numbers)), size)
    return np.array(_turned(picture, file), dtype=np.float32)


def _numbers(picture: Image.Image) -> Pixels:
    numbers: Pixels = np.asarray(picture).astype(np.float32)
    return numbers / np.float32(255)
