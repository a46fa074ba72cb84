"""A scene as text: boxes with prompts on a canvas, one JSON string, as the canvas of BlockLoRA Scene writes it.

{"boxes": [{"x": 0, "y": 0, "w": 0.5, "h": 1, "concept": "<ada>", "prompt": "a {concept}, {scene}"}]}

Only `boxes` is needed, and of a box its concept or its prompt. The first box lies at the back, the last in front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..concept.names import unowned
from ..concept.prompt_lines import PLACEHOLDER
from ..files.untrusted.json_text import finite, parse_json
from .layout import Size
from .region import Box, Region

SCENE = "{scene}"
"""In a box's prompt: where the prompt of the whole picture goes."""

PLAIN = f"a {PLACEHOLDER}, {SCENE}"
"""The prompt of a box that has a concept and none."""

MOST_BOXES, MOST_POINTS = 64, 4096

Shape = Box | tuple[tuple[float, float], ...]
"""A box, or the corners (x, y) of a lasso, as shares of the picture."""


class SceneError(ValueError):
    """Boxes that cannot be used. problems: number of a box, from 1 at the back -> what is wrong with it."""

    def __init__(self, problems: Mapping[int, str]):
        self.problems = problems
        super().__init__("\n".join(f"Box {number}: {problem}" for number, problem in sorted(problems.items())))


@dataclass(frozen=True)
class SceneBox:
    """One box. ValueError for a shape outside the picture, numbers out of range, and a box that shows nothing."""

    shape: Shape = field(default_factory=lambda: Box(0.0, 0.0, 1.0, 1.0))
    concept: str = ""
    prompt: str = ""
    negative: str = ""
    weight: float = 1.0
    feather: float = 0.0

    def __post_init__(self) -> None:
        if not self.concept and not self.prompt:
            raise ValueError("expected a concept or a prompt, got neither. Say what the box shows.")
        Region(self.around, concept=self.concept, weight=self.weight, feather=self.feather)

    @property
    def around(self) -> Box:
        """The box, or the smallest around the lasso."""
        if isinstance(self.shape, Box):
            return self.shape
        (left, right), (top, bottom) = ((min(side), max(side)) for side in zip(*self.shape, strict=True))
        return Box(left, top, right - left, bottom - top)

    def text(self, scene: str) -> str:
        """What the box is asked to show, in a picture whose own prompt is `scene`."""
        prompt = (self.prompt or PLAIN).replace(PLACEHOLDER, self.concept)
        return prompt.replace(SCENE, scene.strip()).strip(" ,\n") if SCENE in prompt else prompt

    def region(self, size: Size, positive: Any, negative: Any) -> Region:
        """The region of a picture of `size` in pixels; positive, negative: the host's prompts."""
        shape = self.shape if isinstance(self.shape, Box) else _filled(self.shape, size)
        return Region(shape, positive, negative, self.concept, self.weight, self.feather)


Boxes = tuple[SceneBox, ...]


def parse_scene(text: str) -> Boxes:
    """The boxes of a scene, from the back to the front; none where the text is empty.

    A bare list of boxes will do, `width` and `height` for `w` and `h`, and numbers in quotes. SceneError names every
    bad box by its number; ValueError where the text is no scene.
    """
    return _each(_box, _entries(text))


def placed(boxes: Boxes, given: Any, size: Size) -> Boxes:
    """`boxes`, each where the box of the same number in `given` is: the host's BOUNDING_BOX, in pixels of `size`.

    ValueError unless there are as many.
    """
    found = list(_bounding_boxes(given))
    if len(found) != len(boxes):
        raise ValueError(
            f"Bounding boxes: expected {len(boxes)}, one for each box of the scene, got {len(found)}. The scene says "
            "what each shows: draw as many boxes in it."
        )
    height, width = size

    def moved(pair: tuple[SceneBox, Mapping[str, Any]]) -> SceneBox:
        box, corner = pair
        x, y, w, h = (_number(name, corner.get(name)) for name in ("x", "y", "width", "height"))
        own = {**vars(box), "shape": Box(x / width, y / height, w / width, h / height)}
        return SceneBox(**own)

    return _each(moved, list(zip(boxes, found, strict=True)))


def check_names(boxes: Boxes, scene: str, known: Iterable[str]) -> None:
    """SceneError where a box names, in angle brackets, a concept that is none of `known`; ValueError where the prompt
    of the whole picture, `scene`, does. With nobody known, any name may be right."""
    owned = tuple(dict.fromkeys(known))
    if not owned:
        return
    _each(lambda box: _check_owned(f"{box.concept} {box.text('')} {box.negative}", owned), boxes)
    try:
        _check_owned(scene, owned)
    except ValueError as error:
        raise ValueError(f"Prompt of the picture: {error}") from error


def _check_owned(text: str, owned: Sequence[str]) -> None:
    if strange := unowned([text], owned):
        raise ValueError(
            f"expected a name among {', '.join(owned)}, got {', '.join(strange)}. Check the spelling, or load that "
            "concept."
        )


def _each(do: Callable[[Any], Any], boxes: Sequence[Any]) -> tuple[Any, ...]:
    done, problems = [], {}
    for number, box in enumerate(boxes, 1):
        try:
            done.append(do(box))
        except ValueError as error:
            problems[number] = str(error)
    if problems:
        raise SceneError(problems)
    return tuple(done)


def _entries(text: str) -> list[Any]:
    try:
        scene = parse_json(text) if text.strip() else []
    except ValueError as error:
        raise ValueError(f'Scene: expected JSON such as {{"boxes": []}}, got {text[:60]!r}: {error}.') from error
    boxes = scene.get("boxes", []) if isinstance(scene, dict) else scene
    if not isinstance(boxes, list) or len(boxes) > MOST_BOXES:
        got = f"{len(boxes)} of them" if isinstance(boxes, list) else repr(boxes)[:60]
        raise ValueError(f"Scene: expected a list of at most {MOST_BOXES} boxes, got {got}.")
    return boxes


_ALIASES: Mapping[str, str] = {"width": "w", "height": "h"}
_PLACE = {"x": 0.0, "y": 0.0, "w": 1.0, "h": 1.0}
_TEXTS, _NUMBERS, _LASSO = ("concept", "prompt", "negative"), ("weight", "feather"), "lasso"
FIELDS = (*_PLACE, *_TEXTS, *_NUMBERS, _LASSO)


def _box(entry: Any) -> SceneBox:
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object with x, y, w, h and a prompt, got {repr(entry)[:60]}.")
    told: dict[str, Any] = {_ALIASES.get(name, name): value for name, value in entry.items() if value is not None}
    if odd := [name for name in told if name not in FIELDS]:
        raise ValueError(f"expected {', '.join(FIELDS)}, got {odd[0]!r}.")
    said: dict[str, Any] = {name: _number(name, told[name]) for name in _NUMBERS if name in told}
    said |= {name: _text(name, told[name]) for name in _TEXTS if name in told}
    return SceneBox(_shape(told), **said)


def _shape(told: Mapping[str, Any]) -> Shape:
    if told.get(_LASSO):
        return _points(told[_LASSO])
    return Box(*(_number(name, told.get(name, usual)) for name, usual in _PLACE.items()))


def _points(points: Any) -> tuple[tuple[float, float], ...]:
    pairs = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)
    if not pairs or not 3 <= len(points) <= MOST_POINTS:
        raise ValueError(f"expected a lasso of 3 to {MOST_POINTS} points [x, y], got {repr(points)[:60]}.")
    return tuple((_number("x", x), _number("y", y)) for x, y in points)


def _number(name: str, value: Any) -> float:
    try:
        return finite(float(value) if isinstance(value, str) else value)
    except ValueError as error:
        raise ValueError(f"expected a number in {name}, got {repr(value)[:40]}.") from error


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text in {name}, got {repr(value)[:40]}.")
    return value.strip()


def _filled(points: Sequence[tuple[float, float]], size: Size) -> Tensor:
    """(h, w) mask, 1 within the lasso."""
    height, width = size
    picture = Image.new("L", (width, height))
    ImageDraw.Draw(picture).polygon([(x * width, y * height) for x, y in points], fill=1)
    return torch.from_numpy(np.array(picture, dtype=np.float32))


def _bounding_boxes(given: Any) -> Iterable[Mapping[str, Any]]:
    """Those of the first picture: hosts give one, a list, or a list for each picture."""
    if isinstance(given, Mapping):
        return [given]
    boxes = list(given)
    return _bounding_boxes(boxes[0]) if boxes and not isinstance(boxes[0], Mapping) else boxes
