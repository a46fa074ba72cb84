"""Folders of pictures with captions, below ComfyUI's input folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import folder_paths
import numpy as np
import torch
from PIL import Image, ImageOps

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

MASK_SUFFIX = "-masklabel.png"
"""hero.jpg's mask is hero-masklabel.png, as other trainers have it: white where the concept is."""


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES) and not name.lower().endswith(MASK_SUFFIX)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_picture(path.name))


def picture_folders() -> list[str]:
    """Folders below the input folder that hold pictures, relative, with forward slashes."""
    root = Path(folder_paths.get_input_directory())
    found = []
    for parent, _, names in os.walk(root, followlinks=True):
        if Path(parent) != root and any(map(_is_picture, names)):
            found.append(Path(parent).relative_to(root).as_posix())
    return sorted(found)


def _folder(name: str) -> Path:
    root = Path(folder_paths.get_input_directory()).resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or not path.is_dir():
        raise ValueError(
            f"Picture folder: expected a folder below ComfyUI's input folder, got {name!r}. Choose another."
        )
    return path


def folder_hash(name: str) -> str:
    """Changes when a picture or caption in the folder does."""
    state = hashlib.sha256()
    for path in sorted(_folder(name).iterdir()):
        entry = path.stat()
        state.update(f"{path.name} {entry.st_size} {entry.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _open(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file).convert(mode)
    except OSError as error:
        raise ValueError(f"Picture {path.name}: expected a readable picture, got: {error}.") from error


def _tensor(picture: Image.Image) -> torch.Tensor:
    """(1, H, W[, 3]) in [0, 1]."""
    return torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)[None]


def _picture(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """IMAGE (1, H, W, 3), transparent pixels white, and MASK (1, H, W): its mask file, else what is not transparent."""
    picture = _open(path, "RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    mask_file = path.with_name(path.stem + MASK_SUFFIX)
    mask = _open(mask_file, "L") if mask_file.is_file() else picture.getchannel("A")
    if mask.size != picture.size:
        raise ValueError(f"Mask {mask_file.name}: expected the size of {path.name}, {picture.size}, got {mask.size}.")
    return _tensor(Image.alpha_composite(ground, picture).convert("RGB")), _tensor(mask)


def _caption(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"Caption {path.name}: expected UTF-8 text, got other bytes. Save it as UTF-8.") from error


def read_pictures(name: str, default_caption: str) -> tuple[list[torch.Tensor], list[str], list[torch.Tensor]]:
    """Pictures of a folder in the order of their names, captions and masks. ValueError when there is none."""
    files = _files(_folder(name))
    if not files:
        raise ValueError(f"Picture folder {name!r}: expected pictures ({', '.join(PICTURES)}), found none.")
    captions = []
    for path in files:
        text = path.with_suffix(".txt")
        captions.append(_caption(text) if text.is_file() else default_caption)
    pictures, masks = zip(*map(_picture, files), strict=True)
    return list(pictures), captions, list(masks)
