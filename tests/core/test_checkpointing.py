"""Gradient checkpointing: the same gradients, erasure included, from the right blocks, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocklora_core.concept.rows import Scheme
from blocklora_core.training import AdaptedLayer
from blocklora_core.training.adapters.trainable import AdapterSet, RowBlockAdapter
from blocklora_core.training.checkpointing import checkpointed, heavy_blocks
from blocklora_core.training.regularisers.erasure import Erasure, HeldErasure
from tests.core.samples import generator

WIDTH = 16


class Block(nn.Module):
    """Like a transformer block. It changes its input in place, as some do, and counts its forwards."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sequential(nn.Tanh(), nn.Linear(WIDTH, WIDTH)))
        self.forwards = 0

    def forward(self, x: Tensor, options: dict[str, float]) -> Tensor:
        self.forwards += 1
        change = torch.tanh(self.attn(x * 1)) * options["scale"]
        x += change
        return x + self.mlp(x * 1)


class Stage(nn.Module):
    """Like a SpatialTransformer: a projection around a list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor, options: dict[str, float]) -> Tensor:
        x = self.proj(x)
        for number, block in enumerate(self.blocks):
            options["scale"] = 1.0 + number
            x = block(x, options)
        return x


class Network(nn.Module):
    """Like a UNet: a list of stages, of which one has nothing to adapt, then a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(nn.Linear(WIDTH, WIDTH)), nn.Sequential(Stage(), Stage())])
        self.head = nn.Sequential(nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0.0, 0.3, generator=generator(1))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x, options = self.stages[0](x), {"scale": 0.0}
        for stage in self.stages[1]:
            x = stage(x, options)
        return self.head(x)

    def inner(self) -> list[Block]:
        return [module for module in self.modules() if isinstance(module, Block)]


def adapted(network: Network) -> dict[str, AdaptedLayer]:
    return {str(at): AdaptedLayer(block.attn, WIDTH, WIDTH) for at, block in enumerate(network.inner())}


def step(network: Network, erasure: Erasure, blocks: list[nn.Module]) -> list[Tensor]:
    """The adapters' gradients after one forward and one backward pass."""
    layers, random = adapted(network), generator(2)
    rows = Scheme(slots=2).rows(1, WIDTH)
    adapters = {name: RowBlockAdapter(layer, rows, 2, random, torch.device("cpu")) for name, layer in layers.items()}
    for adapter in adapters.values():
        nn.init.normal_(adapter.up, generator=random)
    held = AdapterSet(adapters, erasure, random)
    with held.attached(layers), checkpointed(blocks), held.erasing():
        network(torch.randn(3, 5, WIDTH, generator=random)).square().mean().backward()
    return [parameter.grad for parameter in held.parameters() if parameter.grad is not None]


def forwards(block: nn.Module) -> Any:
    return vars(block).get("forward")


@pytest.mark.parametrize("erasure", [Erasure(), Erasure(0.5), Erasure(0.5, per_sample=True, rescale=True)])
@pytest.mark.parametrize("choose", [Network.inner, lambda network: list(network.stages[1])])
def test_gradients_are_the_same(erasure: Erasure, choose: Callable[[Network], list[nn.Module]]) -> None:
    plain, again = Network(), Network()
    expected = step(plain, erasure, [])
    found = step(again, erasure, choose(again))
    assert len(expected) == 2 * len(plain.inner())
    assert all(bool(gradient.any()) for gradient in expected)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert [block.forwards for block in plain.inner()] == [1] * 4
    assert [block.forwards for block in again.inner()] == [2] * 4


def test_erasure_is_drawn_anew_at_each_step() -> None:
    erasure, one, two = Erasure(0.5), generator(3), generator(3)
    held = AdapterSet({}, erasure, one)
    drawn = []
    for _ in range(2):
        with held.erasing():
            assert held._masks is not None
            drawn.append(held._masks.apply("layer", torch.ones(1, 256)))
            assert torch.equal(drawn[-1], held._masks.apply("layer", torch.ones(1, 256)))
    assert not torch.equal(*drawn)
    assert torch.equal(drawn[0], HeldErasure(erasure, two).apply("layer", torch.ones(1, 256)))


def test_nothing_is_computed_twice_without_gradients() -> None:
    network = Network()
    with checkpointed(network.inner()), torch.no_grad():
        network(torch.ones(1, 1, WIDTH))
    assert [block.forwards for block in network.inner()] == [1] * 4


def test_blocks_are_the_innermost_that_hold_all_that_is_adapted() -> None:
    network = Network()
    blocks = network.inner()
    assert heavy_blocks(network, [block.attn for block in blocks]) == blocks
    first, second = network.stages[1]
    # Once a stage has an adapted layer beside its blocks, the whole stage is one block.
    assert heavy_blocks(network, [first.proj, blocks[0].attn]) == [first, *second.blocks]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_forwards_are_put_back_however_it_ends(error: type[BaseException]) -> None:
    network = Network()
    first, second, *_ = blocks = network.inner()
    own = second.forward = lambda x, _options: x
    with pytest.raises(error), checkpointed(blocks):
        assert all(forwards(block) not in (None, own) for block in blocks)
        raise error
    assert forwards(first) is None and forwards(second) is own
