"""Pictures that the evaluator learns from: emoji on coloured grounds, one or two to a picture.

The art is read from the npm packages ``emoji-datasource-google`` (Noto Emoji) and ``emoji-datasource-twitter``
(Twemoji), unpacked side by side in one folder; see README.md for their licences.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 96
PACKAGES = {"google": "emoji-datasource-google@16.0.0", "twitter": "emoji-datasource-twitter@16.0.0"}
STYLES = {"glossy": "google", "flat": "twitter"}

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "blue": (150, 190, 250),
    "green": (165, 225, 160),
    "yellow": (250, 232, 140),
    "pink": (250, 185, 215),
}

PEOPLE: dict[str, str] = {
    "man": "man",
    "woman": "woman",
    "boy": "boy",
    "girl": "girl",
    "grandfather": "older_man",
    "grandmother": "older_woman",
    "policeman": "cop",
    "guard": "guardsman",
    "princess": "princess",
    "santa": "santa",
    "wizard": "mage",
    "robot": "robot_face",
}

THINGS: dict[str, str] = {
    "cat": "cat", "dog": "dog", "tiger": "tiger", "rabbit": "rabbit", "pig": "pig", "frog": "frog",
    "panda": "panda_face", "lion": "lion_face", "fox": "fox_face", "penguin": "penguin", "tulip": "tulip",
    "sunflower": "sunflower", "cactus": "cactus", "tree": "deciduous_tree", "mushroom": "mushroom",
    "apple": "apple", "grapes": "grapes", "strawberry": "strawberry", "pizza": "pizza",
    "hamburger": "hamburger", "house": "house", "car": "car", "rocket": "rocket", "star": "star",
    "heart": "heart", "sun": "sunny", "snowman": "snowman", "balloon": "balloon",
}  # fmt: skip

CLASSES = {**PEOPLE, **THINGS}


@dataclass(frozen=True)
class Scene:
    """One picture (SIZE, SIZE, 3) uint8 and what it shows."""

    pixels: np.ndarray
    caption: str


def fetch_art(folder: Path) -> Path:
    """Unpack both emoji packages with the npm client, once."""
    for vendor, package in PACKAGES.items():
        if (folder / vendor / "package" / "emoji.json").is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        print(f"fetching {package}", flush=True)
        packed = subprocess.run(
            ["npm", "pack", package, "--json"], cwd=folder, check=True, capture_output=True, text=True
        )
        with tarfile.open(folder / json.loads(packed.stdout)[0]["filename"]) as archive:
            wanted = [
                m for m in archive.getmembers() if f"/img/{vendor}/64/" in m.name or m.name.endswith("emoji.json")
            ]
            archive.extractall(folder / vendor, members=wanted, filter="data")
    return folder


class Sprites:
    """All emoji of both vendors, cut to their visible box, by (style, short name)."""

    def __init__(self, root: Path):
        self.names: dict[str, str] = {}
        listing = root / "google" / "package" / "emoji.json"
        if not listing.is_file():
            raise FileNotFoundError(
                f"Expected unpacked emoji-datasource packages under {root}, found no google/package/emoji.json"
            )
        for entry in json.loads(listing.read_text(encoding="utf-8")):
            if entry["has_img_google"] and entry["has_img_twitter"] and entry["category"] != "Flags":
                self.names[entry["short_name"]] = entry["image"]
        self.root = root
        self._cache: dict[tuple[str, str], Image.Image] = {}

    def __call__(self, style: str, short_name: str) -> Image.Image:
        key = (style, short_name)
        if key not in self._cache:
            vendor = STYLES[style]
            path = self.root / vendor / "package" / "img" / vendor / "64" / self.names[short_name]
            sprite = Image.open(path).convert("RGBA")
            self._cache[key] = sprite.crop(sprite.getbbox())
        return self._cache[key]


def paste(canvas: Image.Image, sprite: Image.Image, centre: tuple[float, float], extent: float) -> None:
    """Paste a sprite whose longer side measures `extent` pixels, its middle at `centre`."""
    scale = extent / max(sprite.size)
    width, height = (max(1, round(side * scale)) for side in sprite.size)
    small = sprite.resize((width, height), Image.Resampling.LANCZOS)
    canvas.paste(small, (round(centre[0] - width / 2), round(centre[1] - height / 2)), small)


def _pick(rng: np.random.RandomState, options) -> str:
    return options[rng.randint(len(options))]


def _class_sprite(sprites: Sprites, style: str, word: str) -> Image.Image:
    return sprites(style, CLASSES[word])


def _class_word(rng: np.random.RandomState) -> str:
    return _pick(rng, tuple(PEOPLE) if rng.rand() < 0.4 else tuple(THINGS))


def single_scene(sprites: Sprites, rng: np.random.RandomState) -> Scene:
    style, ground, word = _pick(rng, tuple(STYLES)), _pick(rng, tuple(BACKGROUNDS)), _class_word(rng)
    canvas = Image.new("RGB", (SIZE, SIZE), BACKGROUNDS[ground])
    centre = SIZE / 2 + rng.uniform(-3, 3), SIZE / 2 + rng.uniform(-3, 3)
    paste(canvas, _class_sprite(sprites, style, word), centre, rng.uniform(76, 88))
    words = ["a", style, word] if rng.rand() < 0.6 else ["a", word]
    if rng.rand() < 0.75:
        words += ["on", "a", ground, "background"]
    return Scene(np.asarray(canvas), " ".join(words))


def pair_scene(sprites: Sprites, rng: np.random.RandomState) -> Scene:
    style, ground = _pick(rng, tuple(STYLES)), _pick(rng, tuple(BACKGROUNDS))
    left, right = _class_word(rng), _class_word(rng)
    canvas = Image.new("RGB", (SIZE, SIZE), BACKGROUNDS[ground])
    for word, column in ((left, 0.26), (right, 0.74)):
        centre = SIZE * column + rng.uniform(-1, 1), SIZE / 2 + rng.uniform(-4, 4)
        paste(canvas, _class_sprite(sprites, style, word), centre, rng.uniform(41, 46))
    caption = f"a {left} on the left and a {right} on the right on a {ground} background"
    return Scene(np.asarray(canvas), caption)
