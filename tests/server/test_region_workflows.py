"""The bundled workflows of regions, run as a user runs them, and one with a ControlNet; only steps are fewer."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blocklora_core.files.io import load, save
from tests.server.conftest import SAMPLER_STEPS, ComfyUI, Outcome
from tests.server.controlnet import write_controlnet
from tests.server.test_workflows import in_slot, pixels

OTHERS = ("felix", "nora", "omar", "draft", "bay")


@pytest.fixture(scope="module")
def concepts(trained: Outcome) -> None:
    """A file for each concept that the workflows load: two that were trained, and copies of them in other slots."""
    folder = trained.loras[0].parent
    for number, name in enumerate(OTHERS):
        lora = in_slot(load(trained.loras[number % 2]), 8 + number, f"<{name}>")
        save(folder / f"{name}.safetensors", lora, overwrite=True)


def run(comfyui: ComfyUI, folder: Path, name: str, **overrides: dict[str, Any]) -> Outcome:
    steps = {"KSampler": {"steps": SAMPLER_STEPS}}
    return comfyui.run_workflow(folder / f"{name}.json", steps | overrides)


def check(outcome: Outcome, prefix: str, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """So many pictures (height, width) of that name, none blank, no two alike."""
    found = [pixels(path) for path in sorted(outcome.pictures) if path.name.startswith(prefix)]
    assert [picture.shape for picture in found] == [(*size, 3)] * count
    assert all(picture.std() > 1 for picture in found)
    assert all(np.abs(a - b).mean() > 1 for a, b in pairwise(found))
    return found


@pytest.mark.usefixtures("concepts")
@pytest.mark.parametrize(
    ("name", "count", "size"),
    [
        ("two_people_two_boxes", 4, (384, 816)),
        ("five_on_a_background", 2, (256, 1408)),
        ("subject_in_a_style", 4, (384, 384)),
    ],
)
def test_a_workflow_of_regions(
    comfyui: ComfyUI, repository: Path, name: str, count: int, size: tuple[int, int]
) -> None:
    check(run(comfyui, repository / "demo" / "workflows", name), name, count, size)


@pytest.mark.usefixtures("concepts")
def test_regions_with_a_controlnet(comfyui: ComfyUI) -> None:
    """No bundled workflow: it takes a pose and a ControlNet, and there is none for the demo's base but this one."""
    folder = Path(__file__).parent
    write_controlnet(comfyui.controlnets / "pose.safetensors")
    posed = run(comfyui, folder, "two_people_posed")
    free = run(comfyui, folder, "two_people_posed", ControlNetApplyAdvanced={"strength": 0.0})
    with_pose = check(posed, "two_people_posed", 2, (384, 816))
    without = check(free, "two_people_posed", 2, (384, 816))
    assert all(np.abs(a - b).mean() > 1 for a, b in zip(with_pose, without, strict=True))
