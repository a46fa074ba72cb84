"""A concept on the activation path is the concept in the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from blocklora_core.concept.layer import Layer, ShapeError
from blocklora_core.concept.rows import Scheme
from blocklora_core.training import AdaptedLayer
from blocklora_core.training.adapters.fixed import FixedLayer, FixedLayers
from tests.core.samples import generator, make_layer

SCHEMES = [None, Scheme()]
MODULES = {
    "linear": lambda: nn.Linear(12, 32),
    "convolution": lambda: nn.Conv2d(6, 32, 3, stride=2, padding=1),
    "pointwise": lambda: nn.Conv2d(6, 32, 1),
}


def made(kind: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return MODULES[kind](), torch.randn((2, 5, 12) if kind == "linear" else (2, 6, 8, 8), generator=generator(1))


def attached_output(module: nn.Module, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    adapted = AdaptedLayer.of(module)
    assert adapted
    with FixedLayers([FixedLayer(adapted, layer)]).attached():
        return module(x)


@pytest.mark.parametrize("scheme", SCHEMES, ids=["plain", "row block"])
@pytest.mark.parametrize("kind", MODULES)
@torch.no_grad()
def test_the_output_is_that_of_changed_weights(kind: str, scheme: Scheme | None) -> None:
    module, x = made(kind)
    layer = make_layer("lora_unet_x", tuple(module.weight.shape), scheme, 3, scale=0.5)
    changed = copy.deepcopy(module)
    changed.weight += layer.dense()
    before = module(x)
    torch.testing.assert_close(attached_output(module, layer, x), changed(x))
    assert torch.equal(module(x), before) and not module._forward_hooks


@torch.no_grad()
def test_it_follows_the_model_s_number_format() -> None:
    module, x = made("linear")
    adapted = AdaptedLayer.of(module)
    assert adapted
    fixed = FixedLayers([FixedLayer(adapted, make_layer("lora_unet_x", (32, 12)))])
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        module.to(dtype)
        with fixed.attached():
            assert module(x.to(dtype)).dtype == dtype


def test_hooks_go_when_an_error_comes() -> None:
    module, _ = made("linear")
    with pytest.raises(RuntimeError, match="shapes"):
        attached_output(module, make_layer("lora_unet_x", (32, 12)), torch.ones(2, 5))
    assert not module._forward_hooks


def test_other_shapes_are_refused() -> None:
    module, x = made("linear")
    with pytest.raises(ShapeError, match=r"expected shape \(32, 12\)"):
        attached_output(module, make_layer("lora_unet_x", (32, 10)), x)
