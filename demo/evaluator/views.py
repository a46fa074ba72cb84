"""What the evaluator is trained on: pairs of pictures of one thing, all drawn at once as tensors.

An instance is an emoji in one colouring; two views of it differ in ground, place, size, tilt, shape and softness. Other
colourings of the same emoji are other instances, so that colours matter. A few instances are a style (other things, the
same filter over the whole picture) or a background (the same scene, other things before it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo.art import BACKGROUNDS, CLASSES, STYLES, Sprites
from demo.evaluator.model import SIDE

SPRITE = 64
SCENES = (
    "foggy", "night_with_stars", "sunrise_over_mountains", "sunrise", "city_sunset", "city_sunrise", "bridge_at_night",
    "milky_way", "rainbow", "ocean", "stars", "national_park", "desert", "camping", "snow_capped_mountain",
    "beach_with_umbrella", "desert_island", "mount_fuji", "cityscape", "stadium", "house_buildings", "sparkler",
    "fireworks", "wedding",
)  # fmt: skip
LUMA = torch.tensor([0.299, 0.587, 0.114])
# Rows of RGB -> YIQ: hue turns in the plane of its last two.
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
ANCHORS, SHARPNESS = 3, 12.0


class SpriteTable:
    """Every emoji of both vendors, longer side SPRITE, centred: (N, 4, SPRITE, SPRITE) uint8, not premultiplied."""

    def __init__(self, sprites: Sprites):
        self.keys = [(style, name) for name in sprites.names for style in STYLES]
        self.numbers = {key: number for number, key in enumerate(self.keys)}
        self.pixels = torch.from_numpy(np.stack([_square(sprites(*key)) for key in self.keys]))

    def __call__(self, numbers: np.ndarray) -> Tensor:
        return self.pixels[torch.from_numpy(numbers)].float() / 255


def _square(sprite) -> np.ndarray:
    from PIL import Image

    scale = SPRITE / max(sprite.size)
    size = tuple(max(1, round(side * scale)) for side in sprite.size)
    canvas = Image.new("RGBA", (SPRITE, SPRITE), (0, 0, 0, 0))
    canvas.paste(sprite.resize(size, Image.Resampling.LANCZOS), tuple((SPRITE - side) // 2 for side in size))
    return np.asarray(canvas).transpose(2, 0, 1)


@dataclass(frozen=True)
class Colouring:
    """Maps of colours: near anchor k, c -> matrix_k c + offset_k. (N, K, 3, 3), (N, K, 3), (N, K, 3)."""

    matrices: Tensor
    offsets: Tensor
    anchors: Tensor

    def __call__(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> the same, recoloured, in 0..1."""
        colours = pictures.flatten(2)
        distances = (colours[:, None] - self.anchors[..., None]).square().sum(2)
        weights = (-SHARPNESS * distances).softmax(1)
        mapped = torch.einsum("nkij,njp->nkip", self.matrices, colours) + self.offsets[..., None]
        return (weights[:, :, None] * mapped).sum(1).clamp(0, 1).view_as(pictures)

    def pick(self, rows: Tensor) -> Colouring:
        return Colouring(self.matrices[rows], self.offsets[rows], self.anchors[rows])


def _turn(rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """A turn of hue, with some change of saturation and lightness."""
    angle, saturation = rng.uniform(0.15, 0.85) * 2 * np.pi, rng.uniform(0.6, 1.3)
    c, s = saturation * np.cos(angle), saturation * np.sin(angle)
    turned = torch.tensor([[rng.uniform(0.75, 1.1), 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float32)
    return torch.linalg.solve(YIQ, turned @ YIQ), torch.full((3,), float(rng.uniform(-0.08, 0.12)))


def _kept(_: np.random.RandomState) -> tuple[Tensor, Tensor]:
    return torch.eye(3), torch.zeros(3)


def _duotone(rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """Dark becomes one colour and light another."""
    dark, light = torch.from_numpy(rng.rand(2, 3)).float()
    dark, light = (dark * 0.5, 0.5 + light * 0.5) if rng.rand() < 0.7 else (dark, light)
    return torch.outer(light - dark, LUMA), dark


def _permuted(rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
    return torch.eye(3)[torch.from_numpy(rng.permutation(3))], torch.zeros(3)


def _same(rng: np.random.RandomState, one) -> list[tuple[Tensor, Tensor]]:
    return [one(rng)] * ANCHORS


def _by_colour(rng: np.random.RandomState) -> list[tuple[Tensor, Tensor]]:
    """Each range of colours changes by itself, as when someone puts on another shirt."""
    return [(_turn, _kept)[rng.rand() < 0.4](rng) for _ in range(ANCHORS)]


def colourings(rng: np.random.RandomState, kinds: list[str]) -> Colouring:
    """One colouring for each of `kinds`."""
    tables = {
        "kept": lambda: _same(rng, _kept),
        "turned": lambda: _same(rng, _turn),
        "permuted": lambda: _same(rng, _permuted),
        "duotone": lambda: _same(rng, _duotone),
        "by colour": lambda: _by_colour(rng),
    }
    drawn = [tables[kind]() for kind in kinds]
    matrices = torch.stack([torch.stack([matrix for matrix, _ in maps]) for maps in drawn])
    offsets = torch.stack([torch.stack([offset for _, offset in maps]) for maps in drawn])
    return Colouring(matrices, offsets, torch.from_numpy(rng.rand(len(kinds), ANCHORS, 3)).float())


RECOLOURED = ("turned", "by colour", "by colour", "permuted", "duotone")


@dataclass(frozen=True)
class Instances:
    """N instances. `sprites` (2, N) and `scenes` (N, -1 for none) are numbers in the table; `captioned` says which of
    them can be named: kept in their own colours, alone on a ground."""

    sprites: np.ndarray
    scenes: np.ndarray
    colouring: Colouring
    styled: np.ndarray
    style: Colouring
    edges: np.ndarray
    captioned: np.ndarray


def draw_instances(
    table: SpriteTable, rng: np.random.RandomState, subjects: int, styles: int, backgrounds: int
) -> Instances:
    """`subjects` come in pairs of the same emoji, in its own colours and in others."""
    count = subjects + styles + backgrounds
    emoji = rng.choice(len(table.keys), subjects // 2, replace=False)
    classes = rng.permutation(sorted(CLASSES.values()))[: subjects // 6]
    named = [table.numbers[(str(rng.choice(list(STYLES))), str(name))] for name in classes]
    emoji[: len(named)] = named
    other = rng.randint(0, len(table.keys), (2, styles + backgrounds))
    sprites = np.concatenate([np.stack([np.repeat(emoji, 2)] * 2), other], 1)
    kinds = ["kept" if i % 2 == 0 else str(rng.choice(RECOLOURED)) for i in range(subjects)]
    kinds += ["kept"] * styles + [str(rng.choice(("kept", *RECOLOURED[:3]))) for _ in range(backgrounds)]
    scenes = np.full(count, -1)
    for i in range(subjects + styles, count):
        scenes[i] = table.numbers[(str(rng.choice(list(STYLES))), str(rng.choice(SCENES)))]
    styled = np.zeros(count, bool)
    styled[subjects : subjects + styles] = True
    style_kinds = ["duotone" if rng.rand() < 0.7 else "by colour" for _ in range(count)]
    edges = styled & (rng.rand(count) < 0.4)
    captioned = np.arange(count) < subjects
    captioned[1::2] = False
    return Instances(
        sprites=sprites,
        scenes=scenes,
        colouring=colourings(rng, kinds),
        styled=styled,
        style=colourings(rng, style_kinds),
        edges=edges,
        captioned=captioned,
    )


@dataclass(frozen=True)
class Views:
    """Pictures (N, 3, SIDE, SIDE) in 0..1 and the name of each one's ground, if it has one."""

    pictures: Tensor
    grounds: list[str | None]


def _uniform(rng: np.random.RandomState, low: float, high: float, *shape: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, shape)).float()


def _grids(rng: np.random.RandomState, extents: Tensor, shift: float, tilt: float, bend: float) -> Tensor:
    """(N, SIDE, SIDE, 2) places in a sprite: placed, tilted, stretched, sometimes mirrored, and bent a little."""
    count = len(extents)
    angle, stretch = _uniform(rng, -tilt, tilt, count), _uniform(rng, 0.9, 1.11, count)
    mirror = torch.from_numpy(np.where(rng.rand(count) < 0.3, -1.0, 1.0)).float()
    x, y = mirror / (extents * stretch), stretch / extents
    matrix = torch.stack(
        [torch.stack([angle.cos() * x, -angle.sin() * x], 1), torch.stack([angle.sin() * y, angle.cos() * y], 1)], 1
    )
    centre = _uniform(rng, -shift, shift, count, 2, 1)
    theta = torch.cat([matrix, -matrix @ centre], 2)
    grid = F.affine_grid(theta, [count, 1, SIDE, SIDE], align_corners=False)
    strength = bend * torch.from_numpy(rng.rand(count, 1, 1, 1)).float()
    field = F.interpolate(_uniform(rng, -1, 1, count, 2, 4, 4) * strength, (SIDE, SIDE), mode="bicubic")
    return grid + field.movedim(1, -1)


def _grounds(rng: np.random.RandomState, count: int) -> tuple[Tensor, list[str | None]]:
    names = list(BACKGROUNDS)
    chosen: list[str | None] = [names[rng.randint(len(names))] if rng.rand() < 0.7 else None for _ in range(count)]
    plain = np.array([BACKGROUNDS[name] if name else rng.randint(0, 256, 3) for name in chosen]) / 255
    return torch.from_numpy(plain).float()[:, :, None, None].expand(-1, -1, SIDE, SIDE).clone(), chosen


def _paste(canvas: Tensor, sprites: Tensor, grid: Tensor) -> Tensor:
    """`sprites` (N, 4, h, w) over `canvas`; colours are premultiplied while they are resampled."""
    colour, alpha = sprites[:, :3], sprites[:, 3:]
    found = F.grid_sample(torch.cat([colour * alpha, alpha], 1), grid, align_corners=False)
    return found[:, :3] + canvas * (1 - found[:, 3:])


def _edges(pictures: Tensor) -> Tensor:
    """White lines where the picture changes, over a dim negative of it."""
    grey = torch.einsum("c,nchw->nhw", LUMA, pictures)[:, None]
    high, low = F.max_pool2d(grey, 3, 1, 1), -F.max_pool2d(-grey, 3, 1, 1)
    return torch.maximum(((high - low) * 3).clamp(0, 1), 0.3 * (1 - grey)).expand(-1, 3, -1, -1)


def draw_views(table: SpriteTable, instances: Instances, side: int, rng: np.random.RandomState) -> Views:
    """One view of every instance; `side` 0 or 1 chooses what stands in styles and before backgrounds."""
    count = len(instances.scenes)
    sprites = table(instances.sprites[side])
    scenic = torch.from_numpy(np.flatnonzero(instances.scenes >= 0))
    recoloured = instances.colouring(sprites[:, :3])
    # Before a background the colouring is the scene's.
    recoloured[scenic] = sprites[scenic, :3]
    sprites = torch.cat([recoloured, sprites[:, 3:]], 1)
    canvas, grounds = _grounds(rng, count)
    extents = _uniform(rng, 0.6, 1.05, count)
    extents[scenic] = _uniform(rng, 0.25, 0.7, len(scenic)) * torch.from_numpy(rng.rand(len(scenic)) < 0.6)
    extents = extents.clamp(min=1e-3)
    if len(scenic):
        scene = table(instances.scenes[scenic.numpy()])
        scene = torch.cat([instances.colouring.pick(scenic)(scene[:, :3]), scene[:, 3:]], 1)
        grid = _grids(rng, _uniform(rng, 1.15, 1.6, len(scenic)), 0.15, 0.05, 0.03)
        canvas[scenic] = _paste(canvas[scenic], scene, grid)
    pictures = _paste(canvas, sprites, _grids(rng, extents, 0.14, 0.25, 0.14))
    styled = torch.from_numpy(np.flatnonzero(instances.styled))
    lined = torch.from_numpy(np.flatnonzero(instances.edges))
    pictures[lined] = _edges(pictures[lined])
    pictures[styled] = instances.style.pick(styled)(pictures[styled])
    plain = set(range(count)) - set(scenic.tolist()) - set(styled.tolist())
    return Views(pictures, [name if i in plain else None for i, name in enumerate(grounds)])


def soften(pictures: Tensor, rng: np.random.RandomState) -> Tensor:
    """Most of them blurred by going through fewer pixels, as few as the base's latents have; noise, light, contrast."""
    result = pictures.clone()
    for number, rows in enumerate(np.array_split(rng.permutation(len(pictures)), 5)):
        if number:
            few = (32, 22, 16, 12)[number - 1] + rng.randint(0, 4)
            small = F.interpolate(pictures[rows], (few, few), mode="bilinear", antialias=True)
            result[rows] = F.interpolate(small, (SIDE, SIDE), mode="bicubic")
    count = len(pictures)
    contrast, light = _uniform(rng, 0.85, 1.1, count, 1, 1, 1), _uniform(rng, -0.05, 0.05, count, 3, 1, 1)
    generator = torch.Generator().manual_seed(int(rng.randint(2**31)))
    noise = torch.randn(pictures.shape, generator=generator) * _uniform(rng, 0, 0.03, count, 1, 1, 1)
    return ((result - 0.5) * contrast + 0.5 + light + noise).clamp(0, 1)
