"""Regions from node to picture, as the executor runs them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

import nodes
from tests.host.tiny import Base

BOX = {
    "x": 0.0,
    "y": 0.0,
    "width": 0.5,
    "height": 1.0,
    "concept": " <a> ",
    "weight": 1.0,
    "feather": 0.0,
    "priority": 0,
}


@pytest.fixture(scope="module")
def kinds(pack: ModuleType) -> dict[str, Any]:
    return {kind.__name__: kind for kind in pack.NODES}


def region(kinds: dict[str, Any], positive: Any, **changes: Any) -> Any:
    return kinds["BlockLoRARegion"].execute(positive=positive, **{**BOX, **changes}).args[0]


@torch.inference_mode()
def test_a_chain_of_regions_samples_with_the_stock_sampler(kinds: dict[str, Any], base: Base) -> None:
    scene, red, blue, bad = (nodes.CLIPTextEncode().encode(base.clip, text)[0] for text in ("a", "red", "blue", "bad"))
    mask = torch.zeros(1, 20, 20)
    mask[:, :, 10:] = 1
    first = region(kinds, red)
    chain = region(kinds, blue, mask=mask, negative=bad, regions=first, feather=0.1, concept="<b>")
    assert [found.concept for found in chain] == ["<a>", "<b>"]
    model, layout = kinds["BlockLoRARegionalSampling"].execute(base.model, chain, "priority", 0.0, 1.0).args[:2]
    assert layout.shape[0] == 1 and layout.shape[-1] == 3

    def sampled(model: Any) -> torch.Tensor:
        latent = {"samples": torch.zeros(2, 4, 8, 12)}
        found: torch.Tensor = nodes.common_ksampler(model, 5, 2, 4.0, "euler", "normal", scene, bad, latent)[0][
            "samples"
        ]
        return found

    ours, plain = sampled(model), sampled(base.model)
    assert ours.shape == plain.shape and bool(ours.isfinite().all()) and not torch.allclose(ours, plain)


def test_a_mask_is_one(kinds: dict[str, Any]) -> None:
    assert region(kinds, None, mask=torch.ones(5, 5))[0].shape.shape == (5, 5)
    with pytest.raises(ValueError, match="got a batch of 2"):
        region(kinds, None, mask=torch.ones(2, 5, 5))
    with pytest.raises(ValueError, match="Region <a>: the mask is empty"):
        region(kinds, None, mask=torch.zeros(1, 64, 64))


def test_a_box_in_a_corner_may_reach_beyond_the_picture(kinds: dict[str, Any]) -> None:
    assert region(kinds, None, x=0.8, y=0.9)[0].shape.across == (0.8, 1.0)
