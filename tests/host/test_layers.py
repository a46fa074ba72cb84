"""Which layers learn, and how: every choice of the Train node on a real, tiny base, against the stock loader."""

from __future__ import annotations

import logging
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.concept.rows import all_rows
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host.ledger import _given
from blocklora.blocklora_core.host.train.layers import LAYER_CHOICES, layer_choice
from blocklora.blocklora_core.host.train.port import ComfyPort
from blocklora.blocklora_core.host.train.train import AUTO_SLOT, TrainJob, train_concept
from blocklora.blocklora_core.host.weights.autograd import training_mode
from blocklora.blocklora_core.host.weights.names import model_stems
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.merge.methods.fused import needs_grams
from blocklora.blocklora_core.training import ADAPTERS, Dataset, Example, TrainConfig, Trainer
from blocklora.blocklora_core.training.adapters.orthogonal import shared_matrix
from blocklora.blocklora_core.training.port import is_linear
from blocklora.blocklora_core.training.regularisers.erasure import Erasure
from torch import nn

import nodes
from tests.host import architectures
from tests.host.any_model import MODELS, WordClip, build
from tests.host.encoders import encoder_of
from tests.host.test_any_model import channels
from tests.host.test_training import CONFIG, pictures, watched
from tests.host.tiny import Base, loaded, patched

CONVOLUTIONS = "linear + convolution"
KEYS = r"attn2\.to_k"
SHORT = TrainConfig.of(
    steps=3,
    batch_size=1,
    rank=2,
    niche_negatives=2,
    gram_pictures=1,
    gram_steps=2,
    preview_every=0,
    learning_rate=0.01,
    token="none",
)


def train(model: Any, name: str = "<ada>", on: str = "sd15", checkpointing: bool = False, **changes: Any) -> Trainer:
    """A trainer that has learnt a little in all layers of a model from any_model."""
    random = torch.Generator().manual_seed(0)
    examples = [Example(torch.randn(channels(on), 8, 8, generator=random), f"a {name}") for _ in range(2)]
    config = SHORT.changed(**changes)
    with training_mode():
        port = ComfyPort(model, WordClip(on), LAYER_CHOICES[CONVOLUTIONS])
        with port.recomputing() if checkpointing else nullcontext():
            trainer = Trainer(port, Dataset(examples, 1), Concept(name, "man"), config)
            trainer.run(lambda _: None)
    return trainer


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
def test_our_merge_of_trained_convolutions_is_the_stock_loader_s(folders: Path, adapter: str) -> None:
    model = build("sd15")
    lora = train(model, **ADAPTERS[adapter]).result()
    assert {layer.weight_shape[2:] for layer in lora.layers.values()} == {(), (1, 1), (3, 3)}
    path = save(folders / "models" / "loras" / "ada.safetensors", lora)
    stock, _ = nodes.LoraLoader().load_lora(model, None, path.name, 1.0, 1.0)
    merged = apply_merge((load(path),), model, None)
    assert len(stock.patches) == merged.model_layers == len(lora.layers)
    before, theirs, ours = patched(model), patched(stock), patched(merged.model)
    assert {name for name in before if not torch.equal(before[name], theirs[name])} == set(stock.patches)
    for name in before:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


def test_the_merged_model_predicts_what_the_adapted_one_did() -> None:
    """Adapters on the activation path and patches of the weights are the same change."""
    model, random = build("sd15"), torch.Generator().manual_seed(2)
    noisy, context = torch.randn(1, 4, 8, 8, generator=random), torch.randn(1, 7, 96, generator=random)

    def prediction(patcher: Any) -> torch.Tensor:
        with loaded(patcher), torch.no_grad():
            found: torch.Tensor = patcher.model.apply_model(noisy, torch.tensor([3.0]), c_crossattn=context)
        return found

    before, trainer = prediction(model), train(model)
    with trainer.adapters.attached(trainer.port.layers):
        adapted = prediction(model)
    merged = prediction(apply_merge((trainer.result(),), model, None).model)
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-5)
    assert float((merged - before).norm()) > 100 * float((merged - adapted).norm())


def test_grams_are_collected_for_the_linears_and_suffice() -> None:
    model = build("sd15")
    pair = [train(model, f"<{slot}>", slot=slot).result() for slot in (3, 4)]
    for lora in pair:
        assert lora.grams is not None and set(lora.grams.input_of) == set(needs_grams(lora)) < set(lora.layers)
    assert apply_merge(tuple(pair), model, None).merged.method == "fused"


def test_checkpointing_changes_no_gradient_of_a_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = build("sd15"), []
    for checkpointing in (False, True):
        with watched(monkeypatch) as gradients:
            train(model, checkpointing=checkpointing, erasure=Erasure(0.5))
        found.append(gradients[1])
    plain, again = found
    # Rounding is all there is of the smallest gradients.
    least = 1e-6 * max(float(gradient.norm()) for gradient in plain.values())
    assert all(float((plain[name] - again[name]).norm()) <= 1e-4 * float(plain[name].norm()) + least for name in plain)
    assert sum(bool(gradient.any()) for gradient in plain.values()) > len(plain) / 2


@pytest.mark.parametrize("adapter", ["plain LoRA", "orthogonal adaptation"])
def test_only_row_blocks_are_given_a_slot(base: Base, adapter: str) -> None:
    held = dict(_given)
    config = CONFIG.changed(steps=1, niche_weight=0.0, gram_steps=1, **ADAPTERS[adapter])
    job = TrainJob(
        Concept("<eve>", "person"), pictures(), ["a person"], config, AUTO_SLOT, precision="fp32", layer_pattern=KEYS
    )
    with torch.inference_mode():
        lora = train_concept(base.model, base.clip, base.vae, job).lora
    assert _given == held and (lora.scheme, lora.slot) == (None, None)
    for stem, layer in lora.layers.items():
        assert stem.endswith("attn2_to_k") and layer.rows == all_rows(layer.out_features)
        nearest = (layer.down @ shared_matrix(layer.in_features).T).abs().max(1).values
        assert bool((nearest > 0.999).all()) == (adapter == "orthogonal adaptation")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_architecture_trains_with_all_its_layers(name: str, tmp_path: Path) -> None:
    model = build(name)
    before = patched(model)
    lora = load(save(tmp_path / "ada.safetensors", train(model, on=name).result(), dtype=torch.float32))
    assert [stem for stem, layer in lora.layers.items() if not layer.up.any()] == [], "every layer learns"
    assert lora.grams is not None and lora.grams.covers(needs_grams(lora))
    after = patched(apply_merge((lora,), model, None).model)
    assert len([key for key in before if not torch.equal(before[key], after[key])]) == len(lora.layers)


def test_grouped_convolutions_are_left_and_named(caplog: pytest.LogCaptureFixture) -> None:
    model = build("sd15")
    blocks = model.model.diffusion_model.input_blocks
    odd = next(module for module in blocks.modules() if isinstance(module, nn.Conv2d) and module.in_channels > 4)
    odd.groups = 2
    with training_mode(), caplog.at_level(logging.WARNING):
        layers = ComfyPort(model, WordClip("sd15"), LAYER_CHOICES[CONVOLUTIONS]).layers
    assert odd not in [layer.module for layer in layers.values()]
    assert any("1 convolutions that are grouped" in message for message in caplog.messages)


# What the tokens pass through in a block, by architecture: (a name that is attention, one that is feed-forward).
PLACES = {
    "flux": ("single_blocks.0.linear1", "double_blocks.0.txt_mlp.0"),
    "chroma": ("single_blocks.1.linear2", "double_blocks.0.img_mlp.2"),
    "hunyuan_video": ("single_blocks.0.linear1", "txt_in.individual_token_refiner.blocks.0.mlp.0"),
    "wan21": ("blocks.0.cross_attn.o", "blocks.1.ffn.2"),
    "hidream": ("double_stream_blocks.0.block.attn1.to_q_t", "single_stream_blocks.1.block.ff_i.experts.2.w1"),
    "auraflow": ("double_layers.0.attn.w2q", "double_layers.0.mlpX.c_fc1"),
    "cosmos_predict2": ("blocks.0.self_attn.q_proj", "blocks.0.mlp.layer1"),
    "lumina2": ("context_refiner.0.attention.qkv", "layers.1.feed_forward.w3"),
    "qwen_image": ("transformer_blocks.0.attn.to_add_out", "transformer_blocks.1.txt_mlp.net.2"),
    "sd35": ("joint_blocks.0.x_block.attn2.qkv", "joint_blocks.1.x_block.mlp.fc1"),
    "sdxl": ("middle_block.1.transformer_blocks.0.attn1.to_out.0", "middle_block.1.transformer_blocks.0.ff.net.2"),
}


@pytest.mark.parametrize("name", architectures.KNOWN)
def test_choices_go_by_the_place_in_the_repeated_blocks(name: str) -> None:
    model = architectures.build(name)
    linears = {
        f"diffusion_model.{at}.weight" for at, one in model.model.diffusion_model.named_modules() if is_linear(one)
    }
    attention, both = ({at for at in linears if LAYER_CHOICES[choice].wanted(at)} for choice in list(LAYER_CHOICES)[:2])
    assert attention < both < linears
    # Nothing named attention is left out, and what is adapted is no modulation, norm or embedding.
    assert {
        at for at in linears if re.search("attn|attention", at, re.I) and not re.search("mod|norm", at)
    } <= attention
    assert [
        at for at in both if re.search(r"mod|norm|adaln|_?emb|time|guidance", at.removeprefix("diffusion_model"))
    ] == []
    if name in PLACES:
        first, second = (f"diffusion_model.{at}.weight" for at in PLACES[name])
        assert first in attention and second in both - attention
    with training_mode():
        ports = [ComfyPort(model, encoder_of(name), LAYER_CHOICES[choice]) for choice in list(LAYER_CHOICES)[:3]]
    shares = [port.share for port in ports]
    assert 0.05 < shares[0] < shares[1] < shares[2] == 1


@pytest.mark.parametrize("name", ["t5", "clip_l", "qwen3_4b"])
def test_text_encoders_too(name: str) -> None:
    side = next(
        one for one, row in architectures.ARCHITECTURES.items() if row[3] in (name,) and one in architectures.KNOWN
    )
    encoder = encoder_of(side).cond_stage_model
    linears = {f"{at}.weight" for at, one in encoder.named_modules() if is_linear(one)}
    attention, both = ({at for at in linears if LAYER_CHOICES[choice].wanted(at)} for choice in list(LAYER_CHOICES)[:2])
    assert {at for at in linears if re.search("attn|attention", at, re.I)} == attention and attention < both
