"""Adapters on Linears and convolutions: what they add, what they learn, what they refuse."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from blocklora_core.concept.concept import Concept
from blocklora_core.concept.rows import Scheme, all_rows, index
from blocklora_core.files.io import load, save
from blocklora_core.training import ADAPTERS, AdaptedLayer, Dataset, Example, TrainConfig, Trainer
from blocklora_core.training.adapters.trainable import AdapterSet, RowBlockAdapter
from blocklora_core.training.regularisers.erasure import Erasure
from tests.core.fake_port import CHANNELS, SIDE, FakePort

CPU = torch.device("cpu")
HERO = Concept("<hero>", "man")
CONFIG = TrainConfig.of(
    steps=20, batch_size=4, rank=2, learning_rate=0.02, preview_every=0, slot=3, niche_negatives=2, gram_steps=2
)


class ConvPort(FakePort):
    """A convolution before the Linears, so that both kinds learn side by side."""

    def __init__(self, only: Sequence[str] = ("conv", "q", "k")):
        super().__init__()
        self.only = only
        self.conv = nn.Conv2d(CHANNELS, 16, 3, padding=1, bias=False)
        self.back = nn.Conv2d(16, CHANNELS, 1, bias=False)
        for layer in (self.conv, self.back):
            weight = torch.randn(layer.weight.shape, generator=self.generator) * 0.2
            layer.weight = nn.Parameter(weight, requires_grad=False)

    @property
    def layers(self) -> dict[str, AdaptedLayer]:
        conv = AdaptedLayer.of(self.conv)
        assert conv
        every = {"conv": conv, **super().layers}
        return {name: every[name] for name in self.only}

    def predict(self, noisy: Tensor, *rest: object) -> Tensor:
        return super().predict(noisy + self.back(torch.tanh(self.conv(noisy))), *rest)  # type: ignore[arg-type]


def examples() -> list[Example]:
    random = torch.Generator().manual_seed(7)
    return [Example(torch.randn(CHANNELS, SIDE, SIDE, generator=random) * 0.1 + 1, "a <hero>") for _ in range(8)]


def trained(port: FakePort, config: TrainConfig = CONFIG, concept: Concept = HERO) -> Trainer:
    trainer = Trainer(port, Dataset(examples(), config.batch_size), concept, config)
    trainer.run(lambda _: None)
    return trainer


def adapter_of(layer: AdaptedLayer, scheme: Scheme, slot: int = 1) -> RowBlockAdapter:
    rows = scheme.rows(slot, layer.out_features)
    adapter = RowBlockAdapter(layer, rows, 3, torch.Generator().manual_seed(0), CPU)
    nn.init.normal_(adapter.up)
    return adapter


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    """Convolutions of every geometry, as ComfyUI's models have them."""
    kinds: tuple[type[nn.Conv1d | nn.Conv2d | nn.Conv3d], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    kind = draw(st.sampled_from(kinds))
    stride, kernel = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    # torch itself warns of "same" around an even kernel.
    paddings = ["same", 0, 1, 2] if stride == 1 and kernel % 2 else [0, 1, 2]
    padding = draw(st.sampled_from(paddings))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return kind(5, 16, kernel, stride=stride, padding=padding, dilation=draw(st.integers(1, 2)))


@given(convolutions())
@settings(max_examples=40, deadline=None)
def test_a_convolution_s_adapter_is_its_weight_s_change(module: nn.Module) -> None:
    layer = AdaptedLayer.of(module)
    assert layer and layer.convolution
    adapter = adapter_of(layer, Scheme(slots=4))
    x = torch.randn(2, 5, *[7] * len(layer.convolution.kernel), generator=torch.Generator().manual_seed(1))
    with AdapterSet({"c": adapter}, Erasure(), torch.Generator()).attached({"c": layer}), torch.no_grad():
        adapted = module(x)
    change = adapter.to_layer()
    assert change.weight_shape == tuple(module.get_parameter("weight").shape)
    assert change.up.shape == (4, 3, *[1] * len(layer.convolution.kernel))
    with torch.no_grad():
        module.get_parameter("weight").add_(change.dense())
        torch.testing.assert_close(adapted, module(x), rtol=1e-4, atol=1e-5)


@given(st.booleans(), st.integers(0, 3), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_erasure_takes_whole_channels_away(per_sample: bool, slot: int, seed: int) -> None:
    layer = AdaptedLayer.of(nn.Conv2d(5, 16, 3, padding=1))
    assert layer
    adapters = AdapterSet(
        {"c": adapter_of(layer, Scheme(slots=4), slot)}, Erasure(0.5, per_sample), torch.Generator().manual_seed(seed)
    )
    x = torch.randn(3, 5, 4, 4)
    with torch.no_grad():
        plain = layer.module(x)
        with adapters.attached({"c": layer}):
            adapted = layer.module(x)
            with adapters.erasing():
                erased, again = layer.module(x), layer.module(x)
    assert torch.equal(erased, again)
    kept, gone = ((erased == other).flatten(2).all(2) for other in (adapted, plain))
    assert bool((kept | gone).all())
    assert per_sample or bool((kept.all(0) | gone.all(0)).all())


def test_gradients_of_a_convolution_equal_those_of_a_lora_whose_other_channels_are_zero() -> None:
    module = nn.Conv2d(5, 16, 3, stride=2, padding=1).requires_grad_(False)
    layer = AdaptedLayer.of(module)
    assert layer
    adapter = adapter_of(layer, Scheme(slots=4))
    up, down = adapter.to_layer().full_up().requires_grad_(), adapter.down.detach().clone().requires_grad_()
    x = torch.randn(2, 5, 8, 8)
    with AdapterSet({"c": adapter}, Erasure(), torch.Generator()).attached({"c": layer}):
        module(x).square().sum().backward()
    dense = (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape)
    nn.functional.conv2d(x, module.weight + dense, module.bias, 2, 1).square().sum().backward()
    assert up.grad is not None and down.grad is not None
    torch.testing.assert_close(adapter.up.grad, up.grad[index(adapter.rows)], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(adapter.down.grad, down.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "module",
    [nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular"),
     nn.ConvTranspose2d(4, 8, 3), nn.LayerNorm(4), nn.Embedding(4, 4)],
)  # fmt: skip
def test_what_no_adapter_fits_is_no_layer(module: nn.Module) -> None:
    assert AdaptedLayer.of(module) is None


def test_convolutions_learn_are_saved_and_have_no_gram(tmp_path: object) -> None:
    lora = trained(ConvPort()).result()
    assert all(bool(layer.up.any()) for layer in lora.layers.values())
    assert lora.layers["conv"].weight_shape == (16, CHANNELS, 3, 3)
    assert lora.layers["conv"].rows == CONFIG.adapter.scheme.rows(3, 16)  # type: ignore[union-attr]
    assert lora.grams is not None and sorted(lora.grams.input_of) == ["k", "q"]
    again = load(save(f"{tmp_path}/c.safetensors", lora, dtype=torch.float32))
    for name, layer in lora.layers.items():
        assert torch.equal(again.layers[name].up, layer.up) and torch.equal(again.layers[name].down, layer.down)


def test_convolutions_alone_leave_no_grams_to_collect() -> None:
    trainer = trained(ConvPort(["conv"]))
    assert trainer.grams is None and list(trainer.result().layers) == ["conv"]


@pytest.mark.parametrize("slot", [None, 7, 99])
def test_a_plain_lora_learns_every_row_and_belongs_to_no_slot(slot: int | None, tmp_path: object) -> None:
    config = CONFIG.changed(scheme=None, slot=slot)
    lora = trained(ConvPort(), config).result()
    assert (lora.scheme, lora.slot) == (None, None)
    for layer in lora.layers.values():
        assert layer.rows == all_rows(layer.out_features)
        assert bool(layer.up.flatten(1).any(1).all())
    again = load(save(f"{tmp_path}/c.safetensors", lora))
    assert (again.scheme, again.slot, again.training["scheme"]) == (None, None, None)


def test_a_row_block_is_the_plain_lora_with_fewer_rows() -> None:
    """At the first step B is zero, so its gradient depends on A alone, which the same seed draws alike."""
    config = CONFIG.changed(steps=1, optimizer="adamw")
    block = trained(FakePort(), config).result()
    plain = trained(FakePort(), config.changed(scheme=None)).result()
    for name, layer in block.layers.items():
        torch.testing.assert_close(plain.layers[name].up[index(layer.rows)], layer.up)


def test_orthogonal_adaptation_learns_b_alone() -> None:
    config = CONFIG.changed(scheme=None, slot=None, orthogonal=True, weight_decay=0.1)
    trainer = Trainer(FakePort(), Dataset(examples(), 4), HERO, config)
    start = {name: adapter.down.clone() for name, adapter in trainer.adapters.adapters.items()}
    trainer.run(lambda _: None)
    lora = trainer.result()
    assert (lora.scheme, lora.slot) == (None, None)
    assert len(trainer.adapters.parameters()) == len(lora.layers)
    for name, layer in lora.layers.items():
        assert torch.equal(layer.down, start[name])
        assert bool(layer.up.flatten(1).any(1).all())


def test_orthogonal_concepts_in_two_slots_do_not_hear_each_other() -> None:
    config = CONFIG.changed(rank=1, steps=5, scheme=None, orthogonal=True)
    a, b = (trained(FakePort(), config.changed(slot=slot)).result() for slot in (3, 4))
    for name in a.layers:
        assert float((a.layers[name].dense() @ b.layers[name].dense().T).abs().max()) < 1e-6


def test_orthogonal_concepts_without_slots_choose_rows_by_their_names() -> None:
    config = CONFIG.changed(steps=1, scheme=None, slot=None, orthogonal=True)
    a, again = (trained(FakePort(), config).result() for _ in range(2))
    b = trained(FakePort(), config, Concept("<rival>", "man")).result()
    assert all(torch.equal(a.layers[name].down, again.layers[name].down) for name in a.layers)
    assert any(not torch.equal(a.layers[name].down, b.layers[name].down) for name in a.layers)


@pytest.mark.parametrize(
    ("changes", "only", "message"),
    [
        ({"slot": None}, ["conv", "q"], "Linears only, got the convolution conv"),
        ({"slot": 3, "rank": 3}, ["q"], "of q: expected a rank of at most 2 for inputs of 24 features, got 3"),
        ({"slot": None, "rank": 25}, ["q"], "expected a rank of at most 24"),
        ({"slot": 16}, ["q"], "from 0 to 15, got 16"),
    ],
)
def test_orthogonal_adaptation_says_what_it_cannot(changes: dict[str, int], only: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config = CONFIG.changed(scheme=None, orthogonal=True, **changes)
        Trainer(ConvPort(only), Dataset(examples(), 4), HERO, config)


def test_a_scheme_needs_a_slot() -> None:
    with pytest.raises(ValueError, match="expected one of the scheme's"):
        CONFIG.changed(slot=None)


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_every_adapter_that_is_offered_can_be_asked_for(kind: str) -> None:
    fields = {"slot": 0, **ADAPTERS[kind]}
    assert trained(FakePort(), CONFIG.changed(**fields, rank=1, steps=1)).result().layers
