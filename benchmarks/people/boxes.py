"""Who stands in which box, and on which ground? People of the development cast, by the gene reader.
After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.boxes_study.layouts import SIDES, Layout, row
from benchmarks.boxes_study.results import sheet
from benchmarks.boxes_study.scenes import SETTINGS, Scene
from benchmarks.identity_study.plan import groups
from benchmarks.identity_study.results import rounded
from benchmarks.identity_study.train import Training
from benchmarks.identity_study.work import Folders, WorkerPool, kept_pictures
from benchmarks.people import cast
from benchmarks.people.arms import SAMPLING, default_recipe
from blocklora_core.evaluation.crops import crop
from blocklora_core.evaluation.intervals import bootstrap
from blocklora_core.host.train.progress import to_picture
from blocklora_core.regions import Box
from demo.people.captions import with_article
from demo.people.reader.figures import SIDE
from demo.people.reader.measuring import PAIR_WIDTH, cut
from demo.people.reader.model import GeneReader
from demo.people.reader.questions import GROUND
from demo.people.reader.reading import Identity, Reading
from demo.people.reader.stored import stored_reader
from demo.people.recipe.autoencoder import to_unit
from demo.people.scenes import GROUNDS
from demo.people.styles import STYLES

PAIR = Layout((SIDE, PAIR_WIDTH), (Box(0.0, 0.0, 0.5, 1.0), Box(0.5, 0.0, 0.5, 1.0)), (), SIDES, 3)
"""Two as the base's own pairs stand; figures are cut out as `bench pretrain measure` does."""
LAYOUTS: Mapping[str, Layout] = {"pair": PAIR, "2": row(2, 2, SIDE), "3": row(3, 2, SIDE), "5": row(5, 1, SIDE)}
WAYS = ("plain", "areas", "regional", "merged")
SEEDS = 16

People = Sequence[cast.Drawn]


@cache
def people() -> People:
    """They come first in the cast, so a place here is a slot there."""
    return tuple(one for one in cast.development() if one.identity)


def scenes(way: str, layout: Layout) -> list[Scene]:
    """One picture each; groups of people and grounds come in turn."""
    trained = [Training(default_recipe(), one, 0, slot) for slot, one in enumerate(people())]
    found, grounds = groups(len(trained), layout.count), list(GROUNDS)
    words = {one.name: STYLES[one.identity.style].word for one in people() if one.identity}
    made = []
    for seed in range(SEEDS):
        chosen = tuple(trained[at] for at in found[seed % len(found)])
        ground = f"{with_article(grounds[seed % len(grounds)])} background"
        drawn = tuple(words[one.member.name] for one in chosen)
        made.append(Scene(SETTINGS[way], layout, chosen, (seed,), ground, SAMPLING, drawn))
    return made


def _figures_of(picture: Tensor, layout: Layout) -> Tensor:
    """(H, W, 3) in 0..1 -> each box's figure, (N, 3, SIDE, SIDE)."""
    if not layout.seen:
        return to_unit([np.asarray(cut(to_picture(picture[None]), at)) for at in range(layout.count)])
    return torch.cat([crop(picture[None], astuple(box), SIDE) for box in layout.seen]).movedim(-1, 1)


def read(reader: GeneReader, scene: Scene, picture: Tensor) -> dict[str, float]:
    """Shares of the boxes whose nearest person of the cast is the one asked for, of genes right, of grounds right."""
    reading = Reading.of(reader, _figures_of(picture, scene.layout))
    known = {one.name: one.identity.trusted for one in people() if one.identity}
    nearest = reading.nearest(list(known.values())).tolist()
    ground = scene.background.split()[1]
    found = []
    for at, name in enumerate(scene.names):
        right = reading.right(Identity(known[name].style, {GROUND: ground}))[GROUND][at]
        share = reading.share_right(known[name])[at]
        found.append((float(list(known)[nearest[at]] == name), float(share), float(right)))
    return dict(zip(("right", "genes", "ground"), np.mean(found, axis=0).tolist(), strict=True))


def measured(found: Sequence[Scene], folders: Folders, reader: GeneReader) -> dict[str, Any]:
    """Intervals over groups and their pictures, whose boxes stay together."""
    seen: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for scene in found:
        seen.setdefault(scene.names, []).append(read(reader, scene, kept_pictures(scene.path(folders))[0]))
    return {
        metric: rounded(bootstrap([[one[metric] for one in pictures] for pictures in seen.values()]))
        for metric in ("right", "genes", "ground")
    }


def measure(pool: WorkerPool, minutes: float, out: Path) -> dict[str, Any]:
    """Every way in every layout; nothing until all pictures are there. Five in a row are shown in people_boxes.jpg."""
    asked = {way: {name: scenes(way, layout) for name, layout in LAYOUTS.items()} for way in WAYS}
    every = [scene for found in asked.values() for listed in found.values() for scene in listed]
    pool.work([training for scene in every for training in scene.trained], every, minutes * 60)
    if not all(scene.path(pool.folders).is_file() for scene in every):
        return {}
    sheet({way: found["5"] for way, found in asked.items()}, pool.folders).save(out / "people_boxes.jpg", quality=90)
    reader = stored_reader()
    return {
        "ways": {
            way: {"title": SETTINGS[way].title} | {
                name: measured(listed, pool.folders, reader) for name, listed in found.items()
            }
            for way, found in asked.items()
        },
        "pictures": SEEDS,
    }  # fmt: skip
