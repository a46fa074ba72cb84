"""Pictures of one person each: what a concept is trained on. Its genes stay, everything else varies.

`python -m demo.people.portraits FOLDER --people 12 --pictures 10` draws held-out people, a folder for each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from demo.people import styles
from demo.people.captions import ALONE, Detail, ground_words, person_words
from demo.people.corpus import prepare_renderer, render, write_records
from demo.people.genes import Genes, Style, draw_identity, draw_look, is_held_out, make_person
from demo.people.scenes import GROUNDS, Scene, person_part


def unseen_identities(count: int, seed: int) -> list[tuple[Style, Genes]]:
    """Held-out people, the styles of training in turn; no two of one style share hair, its colour and skin."""
    rng = np.random.RandomState(seed)
    found: list[tuple[Style, Genes]] = []
    taken = set()
    while len(found) < count:
        style = styles.TRAINED[len(found) % len(styles.TRAINED)]
        identity = draw_identity(style, rng)
        key = (style.package, *(identity.get(gene) for gene in ("hair", "hair_colour", "skin")))
        if is_held_out(style, identity) and key not in taken:
            taken.add(key)
            found.append((style, identity))
    return found


def portraits(style: Style, identity: Genes, count: int, seed: int, detail: Detail = ALONE) -> list[Scene]:
    """Expression, eyes, clothes, ground, place and size differ; grounds come in turn, so that none marks the person."""
    rng = np.random.RandomState(seed)
    grounds = rng.permutation(list(GROUNDS))
    scenes = []
    for number in range(count):
        person = make_person(style, identity, draw_look(style, rng))
        ground = str(grounds[number % len(grounds)])
        part = person_part(person, 64 + rng.uniform(-6, 6), rng.uniform(104, 127))
        words = person_words(person, rng, detail, style=True)
        scenes.append(Scene(128, ground, words + ground_words(ground), [part]))
    return scenes


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--renderer", type=Path, help="where the npm packages are kept; FOLDER/renderer if not given")
    options = parser.parse_args(arguments)
    renderer = prepare_renderer(options.renderer or options.folder / "renderer")
    for number, (style, identity) in enumerate(unseen_identities(options.people, options.seed)):
        folder = options.folder / f"{number:02d}_{style.word}"
        scenes = portraits(style, identity, options.pictures, options.seed + number)
        write_records([s.record(f"{i:02d}.png") for i, s in enumerate(scenes)], folder / "scenes.jsonl")
        render(folder / "scenes.jsonl", folder, renderer)


if __name__ == "__main__":
    main()
