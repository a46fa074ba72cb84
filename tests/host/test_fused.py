"""Weights that are several layers in one: every slot gets its share of each, on real models of each architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.ops
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora.blocklora_core.concept.keys import fused_parts
from blocklora.blocklora_core.concept.layer import Layer
from blocklora.blocklora_core.concept.rows import BY_NAME, BY_PARTS, Parts, Scheme, count, sizes
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.files.record import rows_of
from blocklora.blocklora_core.host import ledger
from blocklora.blocklora_core.host.base import base_name
from blocklora.blocklora_core.host.train.train import AUTO_SLOT, TrainJob, train_concept
from blocklora.blocklora_core.host.weights.fused import parts_of
from blocklora.blocklora_core.host.weights.names import model_stems, model_weights, preferred_stems
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.training import TrainConfig
from comfy.ldm.flux.layers import DoubleStreamBlock, SingleStreamBlock
from comfy.ldm.lumina.model import JointAttention
from torch import nn

import nodes as comfy_nodes
from tests.host.architectures import KNOWN, Vae, build, latents_of
from tests.host.encoders import encoder_of
from tests.host.tiny import patched

QKV, FLUX_SINGLE, FLUX2_SINGLE, GATED = (96,) * 3, (*(96,) * 3, 384), (*(96,) * 3, 288, 288), (288, 288)

_FLUX: dict[str, Parts] = {"linear1": FLUX_SINGLE}
_FLUX2: dict[str, Parts] = {"linear1": FLUX2_SINGLE, "img_mlp.0": GATED, "txt_mlp.0": GATED}

# Of each architecture the weights whose parts their names do not tell.
FUSED: dict[str, dict[str, Parts]] = {
    **dict.fromkeys(("flux", "flux_schnell", "chroma", "longcat", "hunyuan_video", "hunyuan_image"), _FLUX),
    **dict.fromkeys(("flux2", "klein"), _FLUX2),
    "lumina2": {"attention.qkv": (96, 32, 32)},
    "zimage": {"attention.qkv": (288,) * 3},
    "pixart_sigma": {"kv_linear": (96, 96)},
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_the_parts_of_every_architecture_s_weights(name: str) -> None:
    weights = model_weights(build(name))
    expected = {
        weight: parts
        for weight in weights.shapes
        for ending, parts in FUSED.get(name, {}).items()
        if weight.endswith(f".{ending}.weight")
    }
    assert weights.parts == expected
    assert all(sum(parts) == weights.shapes[weight][0] for weight, parts in expected.items())
    # Whatever the host's key map says of a weight lies between cuts that we know.
    for piece in weights.pieces.values():
        rows = weights.shapes[piece.weight][0]
        parts = sizes(rows, weights.parts.get(piece.weight) or fused_parts(piece.weight))
        cuts = {sum(parts[:at]) for at in range(len(parts) + 1)}
        assert {piece.rows.start, piece.rows.stop} <= cuts or name in ("flux2", "klein"), piece


@pytest.mark.parametrize("name", ["flux", "chroma", "zimage"])
def test_the_host_s_key_map_alone_says_the_same(name: str) -> None:
    weights = model_weights(build(name))
    pieces = [piece[:2] for piece in weights.pieces.values()]
    assert parts_of(nn.Module(), pieces, weights.shapes) == weights.parts


META: dict[str, Any] = {"dtype": torch.float32, "device": "meta", "operations": comfy.ops.disable_weight_init}
REAL: dict[str, tuple[nn.Module, str, Parts]] = {
    "Flux.1": (SingleStreamBlock(3072, 24, **META), "linear1", (3072, 3072, 3072, 12288)),
    "Flux.2 dev": (SingleStreamBlock(6144, 48, 3.0, mlp_silu_act=True, **META), "linear1", (6144,) * 3 + (18432,) * 2),
    "Flux.2 dev, double": (DoubleStreamBlock(6144, 48, 3.0, mlp_silu_act=True, **META), "img_mlp.0", (18432,) * 2),
    "Lumina 2": (JointAttention(2304, 24, 8, True, operation_settings=META), "qkv", (2304, 768, 768)),
    "Z-Image": (JointAttention(3840, 30, 30, True, operation_settings=META), "qkv", (3840,) * 3),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_at_real_size_each_slot_has_its_share_of_each_part(name: str) -> None:
    block, child, expected = REAL[name]
    network = nn.ModuleDict({"block": block})
    parts = parts_of(network, (), {})[f"block.{child}.weight"]
    assert parts == expected and sum(parts) == block.get_submodule(child).out_features
    for slot in range(16):
        rows = Scheme(BY_PARTS).rows(slot, sum(parts), parts)
        assert [len(segment) for segment in rows] == [size // 16 for size in parts]


def job(name: str, slot: int = 5, scheme: Scheme | None = None) -> TrainJob:
    side = latents_of(name)[-1] * 8
    config = TrainConfig.of(
        steps=2, batch_size=1, rank=2, gram_pictures=1, gram_steps=1, preview_every=0, token="none", learning_rate=0.01,
        niche_negatives=2, scheme=scheme or Scheme(slots=8), slot=max(slot, 0),
    )  # fmt: skip
    picture = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0))
    concept = Concept(f"<c{slot}>" if slot != AUTO_SLOT else "<next>", "man")
    return TrainJob(
        concept, [picture], [f"a {concept.name}"], config, slot, side, layers="all linear", precision="fp32",
        again=True, resume=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["flux", "lumina2", "zimage", "hunyuan_video", "flux2"])
def test_trains_saves_and_merges_as_the_stock_loader_does(name: str, folders: Path) -> None:
    model, clip = build(name), encoder_of(name)
    with torch.inference_mode():
        lora = train_concept(model, clip, Vae(name), job(name)).lora
    assert lora.scheme == Scheme(BY_PARTS, 8)
    path = save(folders / "models" / "loras" / "ada.safetensors", lora, dtype=torch.float32)
    again = load(path)
    stems, weights = model_stems(model), model_weights(model)
    fused = [stem for stem in again.layers if stems[stem] in weights.parts]
    assert fused
    for stem in fused:
        layer, start = again.layers[stem], 0
        assert layer.parts == weights.parts[stems[stem]]
        for size in layer.parts:
            held = sum(start <= row < start + size for segment in layer.rows for row in segment)
            assert held == 6 * size // 8 - 5 * size // 8 > 0
            start += size
    before = patched(model)
    after = patched(apply_merge((again,), model, None).model)
    stock = patched(comfy_nodes.LoraLoader().load_lora(model, None, path.name, 1.0, 1.0)[0])
    changed = {stems[stem]: layer for stem, layer in again.layers.items()}
    for weight, value in before.items():
        expected = value + changed[weight].dense().reshape(value.shape) if weight in changed else value
        torch.testing.assert_close(after[weight], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(stock[weight], after[weight], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd35", "qwen_image", "wan21", "auraflow"])
def test_models_whose_names_tell_stay_with_scheme_1(name: str) -> None:
    with torch.inference_mode():
        lora = train_concept(build(name), encoder_of(name), Vae(name), job(name)).lora
    assert lora.scheme == Scheme(BY_NAME, 8) and not any(layer.parts for layer in lora.layers.values())
    for stem, layer in lora.layers.items():
        assert layer.rows == Scheme(slots=8).rows(5, layer.out_features, fused_parts(stem))
    assert lora.training["scheme"] == {"version": 1, "slots": 8, "layout": "contiguous"}


def made(name: str, slot: int, version: int) -> BlockLoRA:
    """A concept on every matrix of a model's blocks, as trained in that row scheme."""
    model, scheme = build(name), Scheme(version, 8)
    weights, random, layers = model_weights(model), torch.Generator().manual_seed(slot), {}
    for weight, stem in preferred_stems(weights.stems).items():
        if len(weights.shapes[weight]) == 2 and "blocks" in weight:
            parts = weights.parts.get(weight, ()) if version == BY_PARTS else ()
            out, size = weights.shapes[weight]
            rows = rows_of(stem, out, scheme, slot, parts)
            up, down = torch.randn(count(rows), 2, generator=random), torch.randn(2, size, generator=random)
            layers[stem] = Layer(up, down, rows, out, parts=parts)
    return BlockLoRA(Concept(f"<old{slot}>", "man"), layers, scheme, slot, base_name(model))


def test_files_of_scheme_1_load_and_merge_as_before_and_overlaps_are_told(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_given", {})
    model, kept = build("flux"), folders / "models" / "loras"
    first, second = (load(save(kept / f"{slot}.safetensors", made("flux", slot, BY_NAME))) for slot in (0, 7))
    assert first.scheme == Scheme(BY_NAME, 8)
    before, after = patched(model), patched(apply_merge((first, second), model, None, "per_row").model)
    for stem, weight in model_stems(model).items():
        if stem in first.layers:
            expected = before[weight] + first.layers[stem].dense() + second.layers[stem].dense()
            torch.testing.assert_close(after[weight], expected, rtol=1e-4, atol=1e-4)
    newer = made("flux", 1, BY_PARTS)
    with pytest.raises(ValueError, match=r"<old0> .* and <old1> share rows in 2 layers, such as rows 12-23.*linear1"):
        apply_merge((first, newer), model, None, "per_row")
    # Slot 0 of the old scheme holds rows 0 to 83 of 672, Q of slots 0 to 6; slot 7 holds the feed-forward's of 6 and 7.
    with torch.inference_mode():
        with pytest.raises(ValueError, match="expected a free one among 8"):
            train_concept(build("flux"), encoder_of("flux"), Vae("flux"), job("flux", AUTO_SLOT))
        (kept / "0.safetensors").unlink()
        trained = train_concept(build("flux"), encoder_of("flux"), Vae("flux"), job("flux", AUTO_SLOT)).lora
    assert trained.scheme == Scheme(BY_PARTS, 8) and trained.slot == 0
    assert apply_merge((second, trained), model, None, "per_row").merged.shared_rows == 0
