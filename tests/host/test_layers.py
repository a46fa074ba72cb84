"""Which layers learn, and how: every choice of the Train node on a real, tiny base, against the stock loader."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.files import load, save
from blocklora.blocklora_core.host.layers import LAYER_CHOICES, layer_choice
from blocklora.blocklora_core.host.ledger import _given
from blocklora.blocklora_core.host.names import model_stems
from blocklora.blocklora_core.host.patching import apply_merge
from blocklora.blocklora_core.host.port import ComfyPort
from blocklora.blocklora_core.host.train import AUTO_SLOT, TrainJob, TrainResult, train_concept
from blocklora.blocklora_core.host.weights import training_mode
from blocklora.blocklora_core.lora import Concept
from blocklora.blocklora_core.merge.fused import needs_grams
from blocklora.blocklora_core.rows import Scheme, all_rows
from blocklora.blocklora_core.training import ADAPTERS, Dataset, Example, TrainConfig, Trainer
from blocklora.blocklora_core.training.orthogonal import shared_matrix
from torch import nn

import nodes
from tests.host.any_model import MODELS, WordClip, build
from tests.host.test_any_model import channels
from tests.host.test_training import CONFIG, pictures, prediction, watched, weights
from tests.host.tiny import Base, patched, same

CONVOLUTIONS = "linear + convolution"
FEW = r"input_blocks\.1\."
"""A residual block and a transformer block: Linears, 3 x 3 and 1 x 1 convolutions."""


def train(base: Base, name: str = "<ada>", slot: int = 5, adapter: str = "row block", **changes: Any) -> TrainResult:
    job_fields = {key: changes.pop(key) for key in ("layers", "layer_pattern", "checkpointing") if key in changes}
    config = dataclasses.replace(CONFIG, **{**changes, **ADAPTERS[adapter]})
    job = TrainJob(Concept(name, "person"), pictures(), ["a person"], config, slot, precision="fp32", **job_fields)
    with torch.inference_mode():
        return train_concept(base.model, base.clip, base.vae, job)


def chosen(base: Base, name: str, pattern: str = "") -> dict[str, nn.Module]:
    """Weight name -> module of the layers that a training would adapt."""
    with training_mode():
        layers = ComfyPort(base.model, base.clip, layer_choice(name, pattern)).layers
    stems = model_stems(base.model)
    return {stems[stem]: layer.module for stem, layer in layers.items()}


def modules(base: Base, *kinds: type[nn.Module]) -> set[str]:
    return {f"{name}.weight" for name, module in base.model.model.named_modules() if isinstance(module, kinds)}


def test_each_choice_takes_what_it_says(base: Base) -> None:
    found = {name: set(chosen(base, name)) for name in LAYER_CHOICES}
    linears = modules(base, nn.Linear)
    assert found["attention"] == {name for name in linears if ".attn" in name}
    assert found["attention + feed-forward"] == found["attention"] | {name for name in linears if ".ff." in name}
    assert found["all linear"] == linears > found["attention + feed-forward"]
    assert found[CONVOLUTIONS] == linears | modules(base, nn.Conv2d)


def test_a_pattern_takes_the_place_of_the_choice(base: Base) -> None:
    found = set(chosen(base, "attention", r"attn2\.to_[kv]|out_layers"))
    assert found == {
        name
        for name in chosen(base, CONVOLUTIONS)
        if ".attn2.to_k." in name or ".attn2.to_v." in name or "out_layers" in name
    }
    assert any("out_layers" in name for name in found)


def test_patterns_that_cannot_be_are_refused_with_an_example(base: Base) -> None:
    with pytest.raises(ValueError, match=r"expected a regular expression such as attn2\\.to_\[kv\], got 'attn\('"):
        chosen(base, "attention", "attn(")
    with pytest.raises(ValueError, match=r"the pattern 'nowhere', got none\. .* like diffusion_model\.\S+\.weight\."):
        chosen(base, "attention", "nowhere")
    with pytest.raises(ValueError, match=r"expected one of attention, .*, got 'everything'"):
        layer_choice("everything")


@pytest.mark.parametrize("adapter", ["row block", "plain LoRA"])
def test_our_merge_of_trained_convolutions_is_the_stock_loader_s(base: Base, folders: Path, adapter: str) -> None:
    result = train(base, layer_pattern=FEW, adapter=adapter, learning_rate=0.05)
    shapes = {layer.weight_shape[2:] for layer in result.lora.layers.values()}
    assert shapes == {(), (1, 1), (3, 3)}
    path = save(folders / "models" / "loras" / "ada.safetensors", result.lora)
    stock, _ = nodes.LoraLoader().load_lora(base.model, base.clip, path.name, 1.0, 1.0)
    merged = apply_merge((load(path),), base.model, base.clip)
    assert len(stock.patches) == merged.model_layers == len(result.lora.layers)
    before, theirs, ours = patched(base.model), patched(stock), patched(merged.model)
    assert {name for name in before if not torch.equal(before[name], theirs[name])} == set(stock.patches)
    for name in before:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


def test_the_merged_model_predicts_what_the_adapted_one_did(base: Base) -> None:
    """Adapters on the activation path and patches of the weights are the same change."""
    seen: list[torch.Tensor] = []
    random = torch.Generator().manual_seed(2)
    noisy, context = torch.randn(1, 4, 8, 8, generator=random), torch.randn(1, 77, 768, generator=random)
    collect = Trainer._collect_grams

    def watch(self: Trainer) -> Any:
        with torch.no_grad():
            seen.append(self.port.model.model.apply_model(noisy, torch.tensor([3.0]), c_crossattn=context))
        return collect(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_collect_grams", watch)
        result = train(base, layers=CONVOLUTIONS, learning_rate=0.05)
    merged = apply_merge((result.lora,), base.model, base.clip)
    change = prediction(dataclasses.replace(base, model=merged.model))
    torch.testing.assert_close(change, seen[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(change, prediction(base), rtol=1e-2, atol=1e-2)


def test_grams_are_collected_for_the_linears_and_suffice(base: Base) -> None:
    before = weights(base)
    pair = [train(base, f"<{slot}>", slot, layer_pattern=FEW).lora for slot in (3, 4)]
    for lora in pair:
        assert lora.grams is not None and set(lora.grams.input_of) == set(needs_grams(lora)) < set(lora.layers)
    assert apply_merge(tuple(pair), base.model, base.clip).merged.method == "fused"
    assert same(before, weights(base))


def test_checkpointing_changes_no_gradient_of_a_convolution(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    erasure = dataclasses.replace(CONFIG.erasure, probability=0.5)
    found = []
    for checkpointing in (False, True):
        with watched(monkeypatch) as gradients:
            train(base, layers=CONVOLUTIONS, erasure=erasure, steps=2, checkpointing=checkpointing)
        found.append(gradients[1])
    plain, again = found
    assert all(bool(gradient.any()) for gradient in plain.values())
    assert all(float((plain[name] - again[name]).norm()) <= 1e-4 * float(plain[name].norm()) for name in plain)


@pytest.mark.parametrize("adapter", ["plain LoRA", "orthogonal adaptation"])
@pytest.mark.parametrize("slot", [AUTO_SLOT, 5])
def test_only_row_blocks_are_given_a_slot(base: Base, tmp_path: Path, adapter: str, slot: int) -> None:
    held = dict(_given)
    result = train(base, "<eve>", slot, adapter, steps=1)
    assert _given == held
    lora = load(save(tmp_path / "eve.safetensors", result.lora, dtype=torch.float32))
    assert (lora.scheme, lora.slot) == (None, None)
    assert all(layer.rows == all_rows(layer.out_features) for layer in lora.layers.values())
    sizes = {layer.in_features for layer in lora.layers.values()}
    shared = {size: shared_matrix(size) for size in sizes}
    for layer in lora.layers.values():
        matches = (layer.down @ shared[layer.in_features].T).abs().max(1).values
        if adapter == "plain LoRA":
            assert float(matches.max()) < 0.9
            continue
        torch.testing.assert_close(matches, torch.ones(4), rtol=0, atol=1e-5)
        if slot == 5:
            rows = (layer.down @ shared[layer.in_features].T).abs().argmax(1).tolist()
            assert set(rows) <= set(Scheme().rows(5, layer.in_features)[0])


def test_orthogonal_adaptation_is_for_linears(base: Base) -> None:
    with pytest.raises(ValueError, match="Linears only, got the convolution"):
        train(base, adapter="orthogonal adaptation", layers=CONVOLUTIONS)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_architecture_trains_with_all_its_layers(name: str, tmp_path: Path) -> None:
    model, random = build(name), torch.Generator().manual_seed(0)
    before = patched(model)
    examples = [Example(torch.randn(channels(name), 8, 8, generator=random), "a <ada>") for _ in range(2)]
    config = TrainConfig(
        steps=3, batch_size=1, rank=2, niche_negatives=2, gram_pictures=1, gram_steps=2, preview_every=0,
        learning_rate=0.01,
    )  # fmt: skip
    with training_mode():
        port = ComfyPort(model, WordClip(name), LAYER_CHOICES[CONVOLUTIONS])
        trainer = Trainer(port, Dataset(examples, 1), Concept("<ada>", "man"), config)
        trainer.run(lambda _: None)
    lora = load(save(tmp_path / "ada.safetensors", trainer.result(), dtype=torch.float32))
    still = [stem for stem, layer in lora.layers.items() if not layer.up.any()]
    print(name, len(lora.layers), still, sorted(set(needs_grams(lora)) - set(lora.grams.input_of)))
    merged = apply_merge((lora,), model, None)
    after = patched(merged.model)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert len(changed) == len(lora.layers) - len(still)


def test_grouped_convolutions_are_left_and_named(caplog: pytest.LogCaptureFixture) -> None:
    model = build("sd15")
    blocks = model.model.diffusion_model.input_blocks
    odd = next(module for module in blocks.modules() if isinstance(module, nn.Conv2d) and module.in_channels > 4)
    odd.groups = 2
    with training_mode(), caplog.at_level(logging.WARNING):
        layers = ComfyPort(model, WordClip("sd15"), LAYER_CHOICES[CONVOLUTIONS]).layers
    assert odd not in [layer.module for layer in layers.values()]
    assert any("1 convolutions that are grouped" in message for message in caplog.messages)
