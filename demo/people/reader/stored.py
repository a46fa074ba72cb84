"""The trained readers, as they are committed."""

from __future__ import annotations

from pathlib import Path

import torch

from demo.base import read_weights, write_weights
from demo.people.reader.model import GeneReader
from demo.people.reader.questions import questions_of
from demo.people.styles import TRAINED

WEIGHTS = Path(__file__).parents[2] / "weights"
NAMES = {False: "reader", True: "colour_blind_reader"}
"""Whether it sees no colour -> its name."""


def new_reader(colour_blind: bool) -> GeneReader:
    return GeneReader(questions_of(TRAINED, with_colours=not colour_blind), colour_blind)


def path_of(colour_blind: bool) -> Path:
    return WEIGHTS / f"{NAMES[colour_blind]}.int8.xz"


def write_reader(reader: GeneReader, path: Path) -> None:
    write_weights(reader.state_dict(), path)


def stored_reader(colour_blind: bool = False, path: Path | None = None) -> GeneReader:
    reader = new_reader(colour_blind)
    state = read_weights(path or path_of(colour_blind))
    reader.load_state_dict({name: tensor.to(torch.float32) for name, tensor in state.items()})
    return reader.eval()
