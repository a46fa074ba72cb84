"""What `bench people` is bound to before its test is run: a hash of everything that decides it, in docs/protocol.md.

After `import_comfyui`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.identity_study import train
from benchmarks.people import cast
from benchmarks.people.arms import ARMS, CONTROL, RECIPES, SAMPLING
from benchmarks.people.scoring.book import JUDGES
from benchmarks.people.scoring.contrasts import DRAWS, MARGIN
from benchmarks.people.scoring.scores import METRICS
from demo import base

PRIMARY = ("genes", "image")
PICTURES = {"development": 4, "test": 8}
"""Of each concept and setting; prompts come in turn."""
WRITTEN = re.compile(r"(Configuration: `)(\w*)(`)")


class ChangedError(ValueError):
    """The configuration is not the one that the protocol was written for."""


def configuration() -> dict[str, Any]:
    casts = {"development": (cast.development(),), "test": cast.test()}
    weights = (base.WEIGHTS, *JUDGES)
    settings = {
        arm: {name: [one.recipe, one.merge.method, _options(one.merge.options)] for name, one in found.settings.items()}
        for arm, found in ARMS.items()
    }
    recipes = {name: [one.adapter, one.erasure, dict(one.fields)] for name, one in RECIPES.items()}
    concepts = {
        name: [[[one.name, one.class_word, one.seed, list(one.prompts)] for one in group] for group in groups]
        for name, groups in casts.items()
    }
    return {
        "casts": concepts, "arms": settings, "control": CONTROL, "recipes": recipes, "common": dict(train.COMMON),
        "layers": train.LAYERS, "sampling": asdict(SAMPLING), "pictures": PICTURES,
        "metrics": list(METRICS), "primary": PRIMARY, "margin": MARGIN, "draws": DRAWS,
        "weights": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in weights},
    }  # fmt: skip


def _options(options: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name != "device"}


def digest() -> str:
    return hashlib.sha256(json.dumps(configuration(), sort_keys=True).encode()).hexdigest()[:16]


def write(path: Path) -> str:
    """Put today's hash into the protocol. ValueError where it has no place for one."""
    found, text = digest(), path.read_text(encoding="utf-8")
    if not WRITTEN.search(text):
        raise ValueError(f"{path.name}: expected a line with Configuration: `...`, got none.")
    path.write_text(WRITTEN.sub(rf"\g<1>{found}\g<3>", text), encoding="utf-8")
    return found


def check(path: Path) -> str:
    """The hash, which is that of the protocol. ChangedError where it is not."""
    found, written = digest(), WRITTEN.search(path.read_text(encoding="utf-8"))
    if written is None or written[2] != found:
        raise ChangedError(
            f"{path.name}: expected the configuration {written[2] if written else 'of none'}, got {found}. Settings "
            "may not change once the test is under way; for another test write another protocol."
        )
    return found
