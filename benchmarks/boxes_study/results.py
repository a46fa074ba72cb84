"""From pictures to figures: which concept stands in which box. After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.boxes_study.scenes import Scene
from benchmarks.identity_study.results import rounded
from benchmarks.identity_study.work import Folders, kept_pictures
from blocklora_core.evaluation import Judge
from blocklora_core.evaluation.crops import crop
from blocklora_core.evaluation.intervals import bootstrap
from blocklora_core.host.train.progress import to_picture
from demo.art import SIZE

LABEL = 330


def figures(judge: Judge, found: Sequence[Scene], folders: Folders) -> dict[str, Any]:
    """right: share of boxes whose nearest concept is the one asked for. image: alignment with its held-out pictures.
    Intervals over groups and pictures, whose boxes stay together."""
    right, image = [], []
    for scene in found:
        pictures = kept_pictures(scene.path(folders))
        hits, alike = zip(*_boxes(judge, scene, pictures), strict=True)
        right.append(np.mean(hits, axis=0).tolist())
        image.append(np.mean(alike, axis=0).tolist())
    return {"right": rounded(bootstrap(right)), "image": rounded(bootstrap(image))}


def _boxes(judge: Judge, scene: Scene, pictures: Tensor) -> Iterator[tuple[list[float], tuple[float, ...]]]:
    for training, box in zip(scene.trained, scene.layout.seen, strict=True):
        name = training.member.name
        cut = crop(pictures, astuple(box), SIZE)
        scores = judge.score(name, judge.embed([cut]), [training.member.class_word] * len(cut))
        yield [float(one == name) for one in scores.found], scores.image


def sheet(found: Mapping[str, Sequence[Scene]], folders: Folders) -> Image.Image:
    """A row a setting, the first pictures of different groups."""
    return titled_rows([(listed[0].setting.title, _first(listed, folders)) for listed in found.values()])


def titled_rows(rows: Sequence[tuple[str, Sequence[Tensor]]]) -> Image.Image:
    """A row a title, with its pictures (1, H, W, 3) in 0..1, all of one size."""
    height, width = rows[0][1][0].shape[1:3]
    image = Image.new("RGB", (LABEL + (width + 8) * len(rows[0][1]), (height + 4) * len(rows)), (255, 255, 255))
    ink = ImageDraw.Draw(image)
    for row, (title, pictures) in enumerate(rows):
        ink.text((6, row * (height + 4) + height // 2 - 6), title, fill=(40, 44, 52))
        for column, picture in enumerate(pictures):
            image.paste(to_picture(picture), (LABEL + column * (width + 8), row * (height + 4)))
    return image


def _first(listed: Sequence[Scene], folders: Folders) -> list[Tensor]:
    """The first pictures of every group in turn, as many as fit."""
    kept = [kept_pictures(scene.path(folders)).split(1) for scene in listed]
    return list(chain.from_iterable(zip(*kept, strict=False)))[: listed[0].layout.across]
