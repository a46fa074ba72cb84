"""A scene from node to picture: the same as what the nodes of regions make, and told before it runs where it cannot."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.nodes.regions.composer import BlockLoRAComposer, BlockLoRAConceptPrompt
from blocklora.nodes.regions.regions import BlockLoRARegion, BlockLoRARegionalSampling
from blocklora.nodes.regions.scene import BlockLoRAScene

import nodes
from tests.host.dynamic import equal
from tests.host.tiny import Base, make_lora

PARTS = ("injection", "enhancement", "fill", "region", "isolation", "reinitialise")
LASSO = [[0.5, 0.25], [1.0, 0.25], [1.0, 1.0], [0.5, 1.0]]
BOXES: list[dict[str, Any]] = [
    {"x": 0.0, "y": 0.0, "w": 0.5, "h": 1.0, "concept": "<ada>", "feather": 0.1},
    {"lasso": LASSO, "concept": "<bob>", "prompt": "{concept} in red", "negative": "bad", "weight": 0.75},
]
SIZE = {"width": 96, "height": 64}


@pytest.fixture(scope="module")
def stack(base: Base) -> tuple[BlockLoRA, BlockLoRA]:
    return make_lora(base, "<ada>", 0, scheme=None), make_lora(base, "<bob>", 1, scheme=None)


@pytest.fixture(scope="module")
def merged(base: Base, stack: tuple[BlockLoRA, BlockLoRA]) -> Base:
    applied = apply_merge(stack, base.model, base.clip, "task_sum")
    return Base(applied.model, applied.clip, base.vae)


def scene(base: Base, *boxes: dict[str, Any], mode: str = "regional", **more: Any) -> tuple[Any, ...]:
    inputs = {**SIZE, "prompt": "a park", "negative": "dull", "scene": json.dumps({"boxes": boxes}), "mode": mode}
    found: tuple[Any, ...] = BlockLoRAScene.execute(base.model, base.clip, **{**inputs, **more}).args
    return found


def encode(clip: Any, text: str) -> Any:
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def sampled(model: Any, positive: Any, negative: Any, latent: Any) -> torch.Tensor:
    result: torch.Tensor = nodes.common_ksampler(model, 7, 2, 3.0, "euler", "normal", positive, negative, latent)[0][
        "samples"
    ]
    return result


def mask() -> torch.Tensor:
    """What the lasso covers of the picture, as one paints it."""
    painted = torch.zeros(1, SIZE["height"], SIZE["width"])
    painted[:, 16:, 48:] = 1
    return painted


def chain(prompts: list[Any], bad: Any) -> Any:
    first = BlockLoRARegion.execute(prompts[0], 0.0, 0.0, 0.5, 1.0, "<ada>", 1.0, 0.1, 0).args[0]
    box = {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0, "concept": "<bob>", "weight": 0.75, "feather": 0.0}
    more: Any = {**box, "priority": 0, "mask": mask(), "negative": bad, "regions": first}
    return BlockLoRARegion.execute(prompts[1], **more).args[0]


@torch.inference_mode()
def test_a_scene_is_the_same_as_its_regions(merged: Base) -> None:
    clip = merged.clip
    prompts = [encode(clip, "a <ada>, a park"), encode(clip, "<bob> in red")]
    regions = chain(prompts, encode(clip, "bad"))
    model = BlockLoRARegionalSampling.execute(merged.model, regions, "priority", 0.0, 1.0).args[0]
    latent = nodes.EmptyLatentImage().generate(**SIZE)[0]
    expected = sampled(model, encode(clip, "a park"), encode(clip, "dull"), latent)
    *ours, report = scene(merged, *BOXES)
    assert equal(sampled(*ours), expected)
    assert "Box 1: a <ada>, a park" in report and "not merged" not in report
    plain = sampled(merged.model, encode(clip, "a park"), encode(clip, "dull"), latent)
    assert not torch.allclose(plain, expected, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("is_merged", [True, False])
def test_a_scene_is_the_same_as_its_composer(base: Base, merged: Base, stack: Any, is_merged: bool) -> None:
    """With the concepts merged, or in their boxes alone."""
    known, given = (merged, None) if is_merged else (base, stack)
    texts = (("<ada>", "a <ada>, a park"), ("<bob>", "<bob> in red"))
    prompts = [BlockLoRAConceptPrompt.execute(known.clip, text, name, given).args[0] for name, text in texts]
    regions = chain(prompts, encode(known.clip, "bad"))
    on: dict[str, bool] = dict.fromkeys(PARTS, True)
    model = BlockLoRAComposer.execute(known.model, regions, "strong", "mean", given, **on).args[0]
    latent = nodes.EmptyLatentImage().generate(**SIZE)[0]
    expected = sampled(model, encode(known.clip, "a park"), encode(known.clip, "dull"), latent)
    # What is merged may stand in the stack as well: a Loader gives both.
    *ours, report = scene(known, *BOXES, mode="composer", preset="strong", overlap="mean", stack=stack)
    assert equal(sampled(*ours), expected)
    assert "enhancement 8" in report and ("Injected layers: 0" in report) == is_merged


@torch.inference_mode()
def test_an_empty_canvas_samples_the_picture_s_own_prompt(merged: Base) -> None:
    model, positive, negative, latent, report = scene(merged, batch_size=2)
    assert model is merged.model and "No boxes" in report
    assert latent["samples"].shape == (2, 4, 8, 12)
    assert equal(positive[0][0], encode(merged.clip, "a park")[0][0])
    assert equal(negative[0][0], encode(merged.clip, "dull")[0][0])


@torch.inference_mode()
def test_who_is_not_merged_is_told(base: Base, stack: Any) -> None:
    assert "Regions name <ada>, which is not merged" in scene(base, BOXES[0], stack=stack)[-1]


BAD = [
    (("composer", {"prompt": "a dog"}), "Box 2: expected a concept, which composer looks for in the prompt, got none"),
    (("composer", {"concept": "<bob>", "prompt": "a dog"}), "Box 2: Concept prompt: expected the words '<bob>'"),
    (("regional", {"concept": "<eve>"}), "Box 2: expected a name among <ada>, <bob>, got <eve>"),
    (("regional", {"concept": "<bob>", "lasso": [[0, 0], [9, 9], [0, 9], [0, 8]], "weight": -1}), "Box 2: .*weight"),
]


@torch.inference_mode()
@pytest.mark.parametrize(("asked", "problem"), BAD)
def test_a_box_that_cannot_be_is_named(merged: Base, asked: tuple[str, dict[str, Any]], problem: str) -> None:
    mode, box = asked
    with pytest.raises(ValueError, match=problem):
        scene(merged, BOXES[0], box, mode=mode)


@torch.inference_mode()
def test_names_are_found_in_any_case(merged: Base) -> None:
    ours, theirs = (scene(merged, {**BOXES[0], "concept": name}, mode="composer") for name in ("<ada>", "<ADA>"))
    assert equal(sampled(*ours[:4]), sampled(*theirs[:4]))


@torch.inference_mode()
def test_bounding_boxes_move_the_boxes(merged: Base) -> None:
    moved = [[{"x": 0, "y": 0, "width": 48, "height": 64}]]
    drawn, placed = (
        scene(merged, {"concept": "<ada>", **place}, bounding_boxes=given)
        for place, given in (({"w": 0.5}, None), ({"x": 0.9}, moved))
    )
    assert equal(sampled(*drawn[:4]), sampled(*placed[:4]))
