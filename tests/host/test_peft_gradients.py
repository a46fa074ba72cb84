"""Gradients of one step against those of peft's LoRA, its rows outside the block zeroed, on the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.concept.keys import is_geglu
from blocklora.blocklora_core.concept.rows import Scheme, index
from blocklora.blocklora_core.host.train.port import training_port
from blocklora.blocklora_core.host.weights.autograd import training_mode
from blocklora.blocklora_core.training import Dataset, Example, TrainConfig, Trainer

from tests.host.any_model import WordClip, build

Gradients = dict[str, torch.Tensor]
RANK, SLOT, NAME = 3, 2, "sd15"


@contextmanager
def trainer_in(precision: str) -> Iterator[Trainer]:
    """A trainer on a tiny SD1.5 UNet whose A and B are all random, so that both have gradients."""
    random = torch.Generator().manual_seed(0)
    examples = [Example(torch.randn(4, 8, 8, generator=random), f"a <ada> {number}") for number in range(2)]
    config = TrainConfig.of(
        steps=1,
        batch_size=2,
        rank=RANK,
        niche_weight=0.0,
        token="none",
        slot=SLOT,
        scheme=Scheme(slots=4),
    )
    with (
        training_mode(),
        training_port(build(NAME), WordClip(NAME), "attention + feed-forward", precision) as port,
    ):
        trainer = Trainer(port, Dataset(examples, 2), Concept("<ada>", "man"), config)
        for adapter in trainer.adapters.adapters.values():
            adapter.up.data = torch.randn(adapter.up.shape, generator=random) * 0.1
        yield trainer


def ours(trainer: Trainer) -> tuple[Gradients, list[Any], torch.Tensor]:
    """Gradients of one batch, what the model was asked, and the latents."""
    asked: list[Any] = []
    predict, add_noise = trainer.port.predict, trainer.port.add_noise
    with pytest.MonkeyPatch.context() as patch, trainer.adapters.attached(trainer.port.layers):
        patch.setattr(trainer.port, "predict", lambda *given: asked.append(given) or predict(*given))
        patch.setattr(trainer.port, "add_noise", lambda *given: asked.append(given[0]) or add_noise(*given))
        trainer.prepare()
        trainer._freeze_token_when_due()
        trainer._learn_batch()
    latents, question = asked
    found = {}
    for name, adapter in trainer.adapters.adapters.items():
        assert adapter.up.grad is not None and adapter.down.grad is not None
        found |= {f"{name}.up": adapter.up.grad, f"{name}.down": adapter.down.grad}
    return found, question, latents


def peft_layers(trainer: Trainer) -> dict[str, Any]:
    """peft's own layers in place of the adapted ones: A is ours, B is ours in the block's rows and 0 in all others."""
    peft = pytest.importorskip("peft", reason="comes with an environment of the tests' own, not into another ComfyUI")

    network = trainer.port.model.model.diffusion_model
    names = {layer.module: name for name, layer in trainer.port.layers.items()}
    targets = {path: names[module] for path, module in network.named_modules() if module in names}
    peft.inject_adapter_in_model(peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(targets)), network)
    found = {name: network.get_submodule(path) for path, name in targets.items()}
    for name, layer in found.items():
        adapter = trainer.adapters.adapters[name]
        up = torch.zeros(adapter.out_features, RANK)
        up[index(adapter.rows)] = adapter.up.detach()
        layer.lora_A["default"].weight.data = adapter.down.detach().clone()
        layer.lora_B["default"].weight.data = up
    return found


def pefts(trainer: Trainer, question: Any, latents: torch.Tensor) -> Gradients:
    layers = peft_layers(trainer)
    predicted = trainer.port.predict(*question)
    # The error of the noise is that of the clean latents over sigma.
    sigma = question[1].view(-1, 1, 1, 1)
    ((predicted - latents) / sigma).square().mean().backward()
    found = {}
    for name, layer in layers.items():
        rows = index(trainer.adapters.adapters[name].rows)
        found |= {f"{name}.up": layer.lora_B["default"].weight.grad[rows]}
        found |= {f"{name}.down": layer.lora_A["default"].weight.grad}
    return found


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 5e-5), ("bf16", 0.1)])
def test_gradients_are_those_of_peft(precision: str, tolerance: float) -> None:
    with trainer_in(precision) as trainer:
        found, question, latents = ours(trainer)
        expected = pefts(trainer, question, latents)
    assert found.keys() == expected.keys() and any(is_geglu(name) for name in trainer.port.layers)
    errors = {name: float((found[name] - expected[name]).norm() / expected[name].norm()) for name in found}
    assert max(errors.values()) < tolerance, errors
