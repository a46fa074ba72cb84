"""Fifteen concepts to test merging with, and sixty: CC0 art inside the `arcade` package, with pictures held out.

Six people that share one prior class, an alien, three animals that share one, three objects, a style and a background.
The same with their hues turned by a quarter, half and three quarters of a circle make sixty. Pictures held out show
poses, tilts, sizes, subjects or views that no training picture shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageChops, ImageFilter, ImageOps

from demo.art import BACKGROUNDS, SIZE, paste

IMAGES = Path("arcade/resources/assets/images")
CHARACTERS = IMAGES / "animated_characters"
BUST = 0.74
GROUNDS = ("white", "yellow")
QUARTERS = 4

Picture = tuple[Image.Image, str]
"""A picture (SIZE, SIZE) and its caption, which names the class word."""
Pictures = Callable[[Path, "Member", bool], Iterator[Picture]]


@dataclass(frozen=True)
class Member:
    """A concept: the name to teach, its class word, where its pictures come from, and a turn of its hues in quarters.

    poses: files it is trained on; held: files that are held out, the same ones when a thing has but one drawing.
    prompts: what it is sampled with; {concept} is its name.
    """

    name: str
    class_word: str
    poses: Sequence[str]
    held: Sequence[str]
    source: Pictures
    prompts: Sequence[str]
    quarter: int = 0

    def training(self, art: Path) -> list[Picture]:
        return list(self.source(art, self, False))

    def held_out(self, art: Path) -> list[Image.Image]:
        return [picture for picture, _ in self.source(art, self, True)]

    def turned(self, quarter: int) -> Member:
        """The same with its hues turned, under a name of its own."""
        return replace(self, name=f"<{self.name.strip('<>')}{quarter + 1}>", quarter=quarter) if quarter else self


def turn(picture: Image.Image, quarter: int) -> Image.Image:
    """`picture` with its hues turned by `quarter` quarters of a circle; white, grey, black and alpha stay."""
    if not quarter:
        return picture
    hue, *rest = picture.convert("RGB").convert("HSV").split()
    shifted = hue.point([(value + quarter * 64) % 256 for value in range(256)])
    turned = Image.merge("HSV", [shifted, *rest]).convert("RGB")
    if picture.mode == "RGBA":
        turned.putalpha(picture.getchannel("A"))
    return turned


def _sprite(path: Path, share: float = 1.0) -> Image.Image:
    """The visible box of a drawing, RGBA, or its upper `share`."""
    sprite = Image.open(path).convert("RGBA")
    left, top, right, bottom = sprite.getbbox() or (0, 0, *sprite.size)
    return sprite.crop((left, top, right, round(top + (bottom - top) * share)))


def _on_ground(sprite: Image.Image, ground: str, extent: float) -> Image.Image:
    canvas = Image.new("RGB", (SIZE, SIZE), BACKGROUNDS[ground])
    paste(canvas, sprite, (SIZE / 2, SIZE / 2), SIZE * extent)
    return canvas


def _caption(word: str, ground: str) -> str:
    return f"a {word} on a {ground} background"


def characters(art: Path, member: Member, held: bool) -> Iterator[Picture]:
    """Head and shoulders, one picture a pose and ground."""
    for ground in GROUNDS:
        for pose in member.held if held else member.poses:
            sprite = turn(_sprite(art / CHARACTERS / f"{pose}.png", BUST), member.quarter)
            yield _on_ground(sprite, ground, 0.84 if held else 0.9), _caption(member.class_word, ground)


TILTS = {False: (-8, 0, 8), True: (-4, 4, 12)}
EXTENTS = {False: (0.8, 0.9), True: (0.85,)}


def things(art: Path, member: Member, held: bool) -> Iterator[Picture]:
    """One picture a drawing, tilt, size and ground."""
    for ground in GROUNDS:
        for file in member.held if held else member.poses:
            sprite = turn(_sprite(art / IMAGES / f"{file}.png"), member.quarter)
            for tilt in TILTS[held]:
                tilted = sprite.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
                for extent in EXTENTS[held]:
                    yield _on_ground(tilted, ground, extent), _caption(member.class_word, ground)


PAPER, LINES = (22, 44, 120), (232, 240, 255)
SUBJECTS = {
    "enemies/frog": "frog", "items/star": "star", "topdown_tanks/tank_red": "car", "tiles/mushroomRed": "mushroom",
    "space_shooter/playerShip1_green": "rocket", "items/coinGold": "sun",
}  # fmt: skip
HELD_SUBJECTS = {"tiles/cactus": "cactus", "enemies/frog_move": "frog", "topdown_tanks/tank_blue": "car"}


def blueprint(sprite: Image.Image, extent: float) -> Image.Image:
    """A drawing as white lines on dark blue."""
    canvas = Image.new("RGB", (SIZE * 2, SIZE * 2), (255, 255, 255))
    paste(canvas, sprite, (SIZE, SIZE), SIZE * 2 * extent)
    grey = canvas.convert("L")
    edges = grey.filter(ImageFilter.FIND_EDGES).filter(ImageFilter.MaxFilter(5))
    # The filter takes the picture's rim for an edge.
    edges = ImageOps.expand(ImageOps.crop(edges, 8), 8).point([min(255, value * 3) for value in range(256)])
    shade = ImageOps.invert(grey).point([value * 0.35 for value in range(256)])
    drawn = ImageChops.lighter(edges, shade).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return ImageOps.colorize(drawn, PAPER, LINES)


def styled(art: Path, member: Member, held: bool) -> Iterator[Picture]:
    """Blueprints of things that the base knows, one picture a drawing and size."""
    for file, word in (HELD_SUBJECTS if held else SUBJECTS).items():
        sprite = _sprite(art / IMAGES / f"{file}.png")
        for extent in EXTENTS[held] if held else (0.75, 0.85):
            yield turn(blueprint(sprite, extent), member.quarter), f"a {member.class_word} {word}"


LAYERS = {"back": 0.2, "sun": 0.1, "buildings": 0.5, "palms": 1.0}
"""File -> how far it moves when the view does, as far things move less."""
VIEW = 240


def view(art: Path, across: int) -> Image.Image:
    """The bay by night, seen from `across` pixels further right."""
    scene = Image.new("RGBA", (VIEW, VIEW))
    for name, share in LAYERS.items():
        layer = Image.open(art / IMAGES / "miami_synth_parallax" / "layers" / f"{name}.png").convert("RGBA")
        wide = Image.new("RGBA", (3 * layer.width, VIEW))
        for copy in range(3):
            wide.paste(layer, (copy * layer.width, 0))
        shift = round(across * share) % layer.width
        scene.alpha_composite(wide.crop((shift, 0, shift + VIEW, VIEW)))
    return scene.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def scenery(art: Path, member: Member, held: bool) -> Iterator[Picture]:
    """The same bay from places that lie apart; those held out lie between."""
    for number in range(4 if held else 12):
        across = number * 60 + 30 if held else number * 20
        yield turn(view(art, across), member.quarter), f"a {member.class_word}"


def _person(folder: str, prefix: str, name: str) -> Member:
    def files(*poses: str) -> tuple[str, ...]:
        return tuple(f"{folder}/{prefix}_{pose}" for pose in poses)

    return Member(
        name,
        "man",
        poses=files("idle", "jump", *(f"walk{number}" for number in range(6))),
        held=files("fall", "walk6", "walk7"),
        source=characters,
        prompts=ON_GROUNDS,
    )


def _thing(name: str, class_word: str, *poses: str, held: Sequence[str] = ()) -> Member:
    return Member(name, class_word, poses=poses, held=held or poses, source=things, prompts=ON_GROUNDS)


ON_GROUNDS = ("a {concept} on a white background", "a {concept} on a yellow background", "a {concept}")

FIFTEEN = (
    _person("female_adventurer", "femaleAdventurer", "<amelia>"),
    _person("zombie", "zombie", "<zed>"),
    _person("male_adventurer", "maleAdventurer", "<felix>"),
    _person("female_person", "femalePerson", "<nora>"),
    _person("male_person", "malePerson", "<omar>"),
    _person("robot", "robot", "<rivet>"),
    _thing(
        "<orbit>", "robot", "alien/alienBlue_front", "alien/alienBlue_walk1", "alien/alienBlue_jump",
        held=("alien/alienBlue_walk2", "alien/alienBlue_fall"),
    ),
    _thing("<bizzy>", "cat", "enemies/bee"),
    _thing("<dotty>", "cat", "enemies/ladybug"),
    _thing("<finn>", "cat", "enemies/fishPink"),
    _thing("<comet>", "rocket", "space_shooter/playerShip1_orange"),
    _thing("<pennant>", "tree", "items/flagRed1", held=("items/flagRed2",)),
    _thing("<dart>", "car", "miami_synth_parallax/car/car-idle"),
    Member(
        "<draft>", "flat", poses=(), held=(), source=styled,
        prompts=("a {concept} frog", "a {concept} star", "a {concept} cactus"),
    ),
    Member("<bay>", "background", poses=(), held=(), source=scenery, prompts=("a {concept}",)),
)  # fmt: skip


def cast(count: int = len(FIFTEEN)) -> tuple[Member, ...]:
    """The first `count`, up to sixty: people first, then the rest, then the same with their hues turned.

    Raises ValueError for more than there are.
    """
    if not 1 <= count <= QUARTERS * len(FIFTEEN):
        raise ValueError(f"cast: expected 1 to {QUARTERS * len(FIFTEEN)} concepts, got {count}.")
    return tuple(member.turned(quarter) for quarter in range(QUARTERS) for member in FIFTEEN)[:count]
