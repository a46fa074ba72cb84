"""Figures cut out of a corpus' pictures, with what there is to read in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo.people.reader.questions import Question, labels_of
from demo.people.scenes import Record

SIDE = 128
COVERED = 0.25
"""A figure of whose width later ones cover more is left out."""
LOOSE = 0.15
"""By how much of its size a cut is wider than the figure, at most."""


@dataclass(frozen=True)
class Figures:
    """pictures (N, 3, SIDE, SIDE) uint8; labels (N, questions) int64, as `labels_of` gives them."""

    pictures: torch.Tensor
    labels: torch.Tensor


def figures(records: Sequence[Record], pictures: Path, questions: Sequence[Question], seed: int = 0) -> Figures:
    """One for every person that can be seen well."""
    shown, labels = [], []
    for record in records:
        picture = None
        for part in _seen_well(record["parts"]):
            picture = picture or Image.open(pictures / record["file"]).convert("RGB")
            rng = np.random.RandomState([seed, len(shown)])
            shown.append(np.asarray(_cut(picture, record, part, rng)))
            labels.append(labels_of(questions, part["style"], part["genes"], record["ground"]))
    return Figures(torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels))


def _seen_well(parts: Sequence[Record]) -> Iterator[Record]:
    for number, part in enumerate(parts):
        if part["kind"] == "person":
            left, right = part["x"], part["x"] + part["size"]
            covered = [min(right, later["x"] + later["size"]) - max(left, later["x"]) for later in parts[number + 1 :]]
            if max(covered, default=0) <= COVERED * part["size"]:
                yield part


def _cut(picture: Image.Image, record: Record, part: Record, rng: np.random.RandomState) -> Image.Image:
    """A square around the figure, a little wider than it; a picture of one figure is taken as it is, half of the
    time, as pictures to be judged are."""
    if picture.width == picture.height and len(record["parts"]) == 1 and rng.rand() < 0.5:
        return picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    scale = picture.height / record["height"]
    size = part["size"] * (1 + rng.uniform(0, LOOSE))
    x = part["x"] + part["size"] / 2 - size / 2 + rng.uniform(-0.06, 0.06) * size
    y = record["height"] - size + rng.uniform(0, 0.04) * size
    box = [round(edge * scale) for edge in (x, y, x + size, y + size)]
    canvas = Image.new("RGB", (box[2] - box[0], box[3] - box[1]), record["ground_colour"])
    canvas.paste(picture, (-box[0], -box[1]))
    return canvas.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
