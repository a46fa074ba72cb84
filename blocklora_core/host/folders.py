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


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def picture_folders() -> list[str]:
    """Folders below the input folder that hold pictures, relative, with forward slashes."""
    root = Path(folder_paths.get_input_directory())
    found = []
    for parent, _, names in os.walk(root, followlinks=True):
        if Path(parent) != root and any(name.lower().endswith(PICTURES) for name in names):
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


def fingerprint(name: str) -> str:
    """Changes when a picture or caption in the folder does."""
    state = hashlib.sha256()
    for path in sorted(_folder(name).iterdir()):
        entry = path.stat()
        state.update(f"{path.name} {entry.st_size} {entry.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _open(path: Path) -> torch.Tensor:
    """(1, H, W, 3) in [0, 1]; transparent pixels become white."""
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGBA")
    except OSError as error:
        raise ValueError(f"Picture {path.name}: expected a readable picture, got: {error}.") from error
    ground = Image.new("RGBA", picture.size, "white")
    pixels = np.asarray(Image.alpha_composite(ground, picture).convert("RGB"))
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]


def _caption(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"Caption {path.name}: expected UTF-8 text, got other bytes. Save it as UTF-8.") from error


def read_pictures(name: str, default_caption: str) -> tuple[list[torch.Tensor], list[str]]:
    """Pictures of a folder in the order of their names, and their captions. ValueError when there is none."""
    files = _files(_folder(name))
    if not files:
        raise ValueError(f"Picture folder {name!r}: expected pictures ({', '.join(PICTURES)}), found none.")
    captions = []
    for path in files:
        text = path.with_suffix(".txt")
        captions.append(_caption(text) if text.is_file() else default_caption)
    return [_open(path) for path in files], captions
