"""Odd but ordinary files of other tools: what stock leaves out is left out and told, and strangers are named."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from blocklora_core.files.io import FileError, load, save
from blocklora_core.files.shown import NOTE

Tensors = dict[str, Tensor]
QUERY, KEY, VALUE = (f"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_{end}" for end in "qkv")
ONES = torch.ones(2, 2)


def pair(stem: str, rank: int = 2) -> Tensors:
    return {f"{stem}.lora_down.weight": torch.ones(rank, 6), f"{stem}.lora_up.weight": torch.ones(8, rank)}


def write(folder: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    safetensors.torch.save_file(tensors, folder / "a.safetensors", metadata)
    return folder / "a.safetensors"


ODD: list[tuple[str, Tensors]] = [
    ("a tensor of no kind", {"surprise": ONES}),
    ("a counter", {"epoch": torch.tensor(3)}),
    ("a down alone", {f"{VALUE}.lora_down.weight": ONES}),
    ("an alpha alone", {f"{VALUE}.alpha": torch.tensor(1.0)}),
    ("two ranks", {f"{VALUE}.lora_down.weight": torch.ones(3, 6), f"{VALUE}.lora_up.weight": torch.ones(8, 2)}),
    ("rank 0", pair(VALUE, 0)),
    ("vectors", {f"{VALUE}.lora_down.weight": torch.ones(6), f"{VALUE}.lora_up.weight": torch.ones(8)}),
    ("a LoRA's bias", {f"{KEY}.lora_B.bias": torch.ones(8)}),
    ("half a LoHa", {f"{VALUE}.hada_w1_a": ONES}),
    ("an OFT that ComfyUI does not know", {f"{VALUE}.oft_diag": torch.ones(2, 2, 2)}),
    ("a bias's own", {"unet.conv_in.bias": ONES}),
]


@pytest.mark.parametrize("odd", [odd for _, odd in ODD], ids=[name for name, _ in ODD])
def test_one_odd_layer_does_not_refuse_the_rest_and_is_told(tmp_path: Path, odd: Tensors) -> None:
    lora = load(write(tmp_path, {**pair(QUERY), **pair(KEY), **odd}))
    assert set(lora.layers) == {QUERY, KEY}
    assert "left out" in lora.metadata[NOTE] and any(name in lora.metadata[NOTE] for name in odd)


def test_a_file_of_which_most_is_odd_is_refused(tmp_path: Path) -> None:
    odd = {
        f"{stem}.lora_{end}.weight": torch.ones(3 if end == "down" else 8, 2)
        for stem in (KEY, VALUE)
        for end in ("up", "down")
    }
    with pytest.raises(FileError, match="equal ranks"):
        load(write(tmp_path, {**pair(QUERY), **odd}))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_numbers_of_eight_bits_are_read_as_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: (value * 0.75).to(dtype) for name, value in pair(QUERY).items()}
    layer = load(write(tmp_path, tensors)).layers[QUERY]
    assert layer.up.dtype == torch.float16 and bool((layer.dense() == 2 * 0.75**2).all())


def test_null_metadata_is_none(tmp_path: Path) -> None:
    path = write(tmp_path, pair(QUERY))
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.dumps({**json.loads(data[8 : 8 + length]), "__metadata__": None}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    assert set(load(path).layers) == {QUERY}


BUNDLES: list[tuple[list[str], str, str]] = [
    (["red fox"], "red-fox", "'red fox'"),
    (["(fox:1.2)"], "fox-1.2", "'(fox:1.2)'"),
    (["<red fox>"], "<red-fox>", "'<red fox>'"),
    (["red <fox>"], "red--fox", "'red <fox>'"),
    (["a&b"], "a-b", "'a&b'"),
    (["hero"], "hero", ""),
    (["a", "b c"], "a", "left out: b c"),
    ([" "], "lora", "' '"),
]


@pytest.mark.parametrize(("names", "called", "told"), BUNDLES)
def test_a_bundled_embedding_gets_a_name_that_prompts_can_hold(
    tmp_path: Path, names: list[str], called: str, told: str
) -> None:
    lora = load(write(tmp_path, {**pair(QUERY), **{f"bundle_emb.{name}.clip_l": torch.ones(1, 4) for name in names}}))
    assert lora.concept.name == called and list(lora.embeddings) == ["clip_l"]
    assert told in lora.metadata.get(NOTE, "") and (told != "") == (NOTE in lora.metadata)
    assert load(save(tmp_path / "b.safetensors", lora)).concept.name == called


TRAINERS: list[tuple[str, Any]] = [
    ("Lightning", {"state_dict": pair(QUERY), "global_step": 5, "optimizer_states": [{"x": ONES}], "loops": None}),
    ("counters", {**pair(QUERY), "epoch": 3, "name": "hero", "betas": [0.9, 0.99], "done": True}),
    ("state alone", {"state_dict": pair(QUERY)}),
    ("one dictionary", {"lora": pair(QUERY)}),
]


@pytest.mark.parametrize("tree", [tree for _, tree in TRAINERS], ids=[name for name, _ in TRAINERS])
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth"])
def test_what_trainers_keep_beside_the_weights_is_left_out(tmp_path: Path, tree: Any, suffix: str) -> None:
    torch.save(tree, tmp_path / f"hero{suffix}")
    lora = load(tmp_path / f"hero{suffix}")
    assert set(lora.layers) == {QUERY} and lora.layers[QUERY].scale == 1


@pytest.mark.parametrize("alpha", [1.0, 1, torch.tensor(1.0)])
def test_an_alpha_that_is_a_plain_number_counts(tmp_path: Path, alpha: Any) -> None:
    torch.save({**pair(QUERY), f"{QUERY}.alpha": alpha}, tmp_path / "hero.pt")
    assert load(tmp_path / "hero.pt").layers[QUERY].scale == 0.5


FLUX = "double_blocks.0.processor.{}.{}.weight"
XLABS = {FLUX.format(name, end): ONES for name in ("qkv_lora1", "proj_lora1", "qkv_lora2") for end in ("down", "up")}

# What a file is, the words that its refusal must hold, and whether one of ComfyUI's own nodes takes it.
STRANGERS: list[tuple[Tensors, str, bool]] = [
    (XLABS, "XLabs", False),
    ({f"{QUERY}.weight": torch.ones(8, 1), f"{QUERY}.on_input": torch.tensor(0.0)}, "IA3", False),
    ({"base_model.model.x.to_k.ia3_l": ONES}, "IA3", False),
    ({"unet:0:up": ONES, "unet:0:down": ONES, "text_encoder:0:up": ONES}, "cloneofsimo", False),
    ({f"blocks.0.attn.a_to_qkv.lora_{end}.default.weight": ONES for end in "AB"}, "DiffSynth", False),
    ({f"single_blocks.0.to_qkv_mlp.lora_{end}.weight": ONES for end in "AB"}, "DiffSynth", False),
    ({"lora_controlnet": ONES, "input_blocks.0.0.up": ONES}, "control LoRA .*Load ControlNet Model", True),
    (
        {"img_in.lora_A.weight": ONES, "img_in.lora_B.weight": ONES, "single_blocks.0.norm.key_norm.scale": ONES},
        "control LoRA for Flux.*Load LoRA", True,
    ),
    ({"model.diffusion_model.x.weight": ONES}, "checkpoint .*Load Checkpoint", True),
    ({"first_stage_model.x.weight": ONES}, "checkpoint .*Load Checkpoint", True),
    ({"transformer_blocks.0.attn.to_q.weight": ONES}, "diffusion model .*Load Diffusion Model", True),
    ({"blocks.0.self_attn.q.weight": ONES}, "diffusion model .*Load Diffusion Model", True),
    ({"text_model.encoder.layers.0.mlp.fc1.weight": ONES}, "text encoder .*Load CLIP", True),
    ({"encoder.block.0.layer.0.SelfAttention.q.weight": ONES}, "text encoder .*Load CLIP", True),
    ({"decoder.conv_in.weight": ONES}, "VAE .*Load VAE", True),
    ({"vision_model.embeddings.x.weight": ONES}, "CLIP vision model", True),
    ({"emb_params": ONES}, "textual inversion embedding .*prompt", True),
    ({"clip_l": ONES, "clip_g": ONES}, "textual inversion embedding .*prompt", True),
    ({"controlnet_blocks.0.weight": ONES}, "ControlNet .*Load ControlNet Model", True),
    ({"ip_adapter.1.to_k_ip.weight": ONES}, "IP-Adapter", True),
    ({"down_blocks.0.motion_modules.0.x.weight": ONES}, "AnimateDiff", True),
    ({"who.knows": ONES}, "unknown tensor who.knows.*no loader of ComfyUI", False),
]  # fmt: skip


@pytest.mark.parametrize(("tensors", "words", "taken"), STRANGERS, ids=[words for _, words, _ in STRANGERS])
def test_what_is_no_lora_that_can_be_read_is_called_by_its_name(
    tmp_path: Path, tensors: Tensors, words: str, taken: bool
) -> None:
    with pytest.raises(FileError, match=words) as caught:
        load(write(tmp_path, {name: value.clone() for name, value in tensors.items()}))
    assert taken or "Load" not in str(caught.value), "no loader takes it, so none is to be named"


@pytest.mark.parametrize("name", ["<cat-toy>", "string_to_param/*"])
def test_pickled_embeddings_are_called_by_their_name(tmp_path: Path, name: str) -> None:
    outer, _, inner = name.partition("/")
    torch.save({outer: {inner: ONES} if inner else ONES}, tmp_path / "a.pt")
    with pytest.raises(FileError, match="textual inversion embedding"):
        load(tmp_path / "a.pt")


def test_a_list_of_tensors_is_cloneofsimo_s(tmp_path: Path) -> None:
    torch.save([ONES, ONES], tmp_path / "a.pt")
    with pytest.raises(FileError, match="cloneofsimo"):
        load(tmp_path / "a.pt")


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("alpha", [None, 3.0])
def test_a_lokr_with_a_core_is_the_product_of_its_parts(tmp_path: Path, split: bool, alpha: float | None) -> None:
    random = torch.Generator().manual_seed(2)
    core, a, b = (torch.randn(shape, generator=random) for shape in ((2, 2, 3, 3), (2, 4), (2, 6)))
    first = torch.randn(3, 3, generator=random)
    parts = {"lokr_w1_a": first[:, :2].clone(), "lokr_w1_b": first[:2].clone()} if split else {"lokr_w1": first}
    stem = "lora_unet_down_blocks_0_resnets_0_conv1"
    tensors = {
        f"{stem}.{word}": value for word, value in {**parts, "lokr_t2": core, "lokr_w2_a": a, "lokr_w2_b": b}.items()
    }
    if alpha is not None:
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    (adapter,) = load(write(tmp_path, tensors)).adapters.values()
    # y = w2_a^T core w2_b x, one convolution after the other, times alpha / rank.
    whole = torch.zeros(4, 6, 3, 3)
    for i in range(2):
        for j in range(2):
            whole += torch.einsum("p,r,kl->prkl", a[i], b[j], core[i, j])
    torch.testing.assert_close(adapter.tensors["lokr_w2"], whole * (1 if alpha is None else alpha / 2))
    expected = first[:, :2] @ first[:2] if split else first
    torch.testing.assert_close(adapter.tensors["lokr_w1"], expected)
    assert set(adapter.tensors) == {"lokr_w1", "lokr_w2"} and adapter.kind == "LoKr"
