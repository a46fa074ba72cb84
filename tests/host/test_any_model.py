"""The trainer on every architecture that ComfyUI builds small: the same loop, another objective and other layers.

Wan, HunyuanVideo and the like build small too, but their latents have a time axis, which pictures do not fill.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host.train.port import ComfyPort
from blocklora.blocklora_core.host.weights.autograd import training_mode
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.training import Conditioning, Dataset, Example, TrainConfig, Trainer

from tests.host.any_model import MODELS, WordClip, build
from tests.host.tiny import patched

CONFIG = TrainConfig.of(
    steps=4, batch_size=2, rank=2, niche_negatives=2, gram_pictures=1, gram_steps=2, preview_every=4, preview_steps=2,
    learning_rate=0.01, token="none",
)  # fmt: skip
FLOW = ("sd3", "flux", "lumina2")


def channels(name: str) -> int:
    return 16 if name in FLOW else 4


def train(name: str, model: Any, **changes: Any) -> Trainer:
    random = torch.Generator().manual_seed(0)
    examples = [Example(torch.randn(channels(name), 8, 8, generator=random), "a <ada>") for _ in range(3)]
    samples = []
    with training_mode():
        port = ComfyPort(model, WordClip(name))
        trainer = Trainer(port, Dataset(examples, 2), Concept("<ada>", "man"), CONFIG.changed(**changes))
        trainer.run(lambda progress: samples.append(progress.sample))
    assert samples[-1] is not None and bool(samples[-1].isfinite().all())
    return trainer


@pytest.mark.parametrize("name", sorted(MODELS))
def test_trains_saves_and_merges(name: str, tmp_path: Path) -> None:
    model = build(name)
    before = patched(model)
    lora = train(name, model).result()
    assert [key for key, layer in lora.layers.items() if not layer.up.abs().max() > 0] == [], "every layer learns"
    again = load(save(tmp_path / "ada.safetensors", lora, dtype=torch.float32))
    merged = apply_merge((again,), model, None)
    after = patched(merged.model)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert merged.model_layers == len(changed) == len(lora.layers)


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_trains_on_an_fp8_base_and_leaves_it_as_it_was(name: str) -> None:
    model = build(name, torch.float8_e4m3fn)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    trainer = train(name, model)
    assert all(layer.up.abs().max() > 0 for layer in trainer.result().layers.values())
    after = model.model.state_dict()
    assert any(weight.dtype == torch.float8_e4m3fn for weight in after.values())
    assert all(torch.equal(before[key].float(), weight.float()) for key, weight in after.items())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_loss_is_that_of_the_network_s_own_output(name: str) -> None:
    """noise for epsilon, alpha noise - sigma' latents for v, noise - latents for flow: from the definitions."""
    model, random = build(name), torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(3, channels(name), 8, 8, generator=random) for _ in range(2))
    with training_mode(), torch.no_grad():
        port = ComfyPort(model, WordClip(name))
        sigma = port.sigmas[torch.tensor([10, len(port.sigmas) // 2, len(port.sigmas) - 10])].float()
        prompt = port.encode("a man", "", {})
        noisy = port.add_noise(latents, noise, sigma)
        clean = port.predict(noisy, sigma, Conditioning.cat([prompt] * 3))
        ours = (clean - latents).square().flatten(1).mean(1) * port.loss_scale(sigma).square()
    s = sigma.view(-1, 1, 1, 1)
    if name in FLOW:
        output, target = (noisy - clean) / s, noise - latents
    elif name == "sd20-v":
        alpha, spread = 1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()
        output, target = (alpha * noisy * alpha - clean) / spread, alpha * noise - spread * latents
    else:
        output, target = (noisy - clean) / s, noise
    expected = (output - target).square().flatten(1).mean(1)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)
