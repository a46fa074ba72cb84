"""A scene looked at before it runs: which names its boxes may use, and what stops it."""

from __future__ import annotations

from typing import Any

from ...files.untrusted.text import legible
from ...regions.composer.options import DEFAULTS
from ...regions.scene import SceneError, parse_scene
from ..queued import Graph
from ..regions.scene import SceneJob, check_scene
from .ahead import names_into

_NAMING = ("model", "stack")


def check_ahead(graph: Graph, node: str) -> None:
    """As a run of the scene in `node` would, SceneError and ValueError, as far as the graph tells before it."""
    inputs = graph[node]["inputs"]
    scene, mode = inputs.get("scene"), inputs.get("mode")
    if not isinstance(scene, str):
        return
    prompt = inputs.get("prompt")
    job = SceneJob(
        boxes=parse_scene(scene),
        prompt=prompt if isinstance(prompt, str) else "",
        negative="",
        size=(1, 1),
        composer=DEFAULTS if mode == "composer" else None,
    )
    check_scene(job, names_into(graph, node, _NAMING) or ())


def look_ahead(graph: Graph, node: str) -> dict[str, Any]:
    """names: those that boxes may use, as far as is known. problems: number of a box -> what is wrong with it.
    problem: what is wrong with the scene as a whole."""
    names = [legible(name) for name in names_into(graph, node, _NAMING) or ()]
    told: dict[str, Any] = {"names": names, "problems": {}, "problem": ""}
    try:
        check_ahead(graph, node)
    except SceneError as error:
        told["problems"] = {number: legible(problem) for number, problem in error.problems.items()}
    except ValueError as error:
        told["problem"] = legible(str(error))
    return told
