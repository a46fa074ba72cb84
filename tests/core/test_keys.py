from __future__ import annotations

import pytest

from blocklora_core.concept import keys
from blocklora_core.files import dialects

UNET = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"

NAMES = [
    (f"{KOHYA}.lora_down.weight", KOHYA, "down"),
    (f"{KOHYA}.lora_up.weight", KOHYA, "up"),
    (f"{KOHYA}.lora_mid.weight", KOHYA, "mid"),
    (f"{KOHYA}.alpha", KOHYA, "alpha"),
    (f"{KOHYA}.dora_scale", KOHYA, "dora_scale"),
    (f"unet.{UNET}.to_q.lora_A.weight", f"unet.{UNET}.to_q", "down"),
    (f"unet.{UNET}.to_q.lora_B.weight", f"unet.{UNET}.to_q", "up"),
    (f"transformer.{UNET}.to_q.lora_A.default.weight", f"transformer.{UNET}.to_q", "down"),
    (f"transformer.{UNET}.to_q.lora_B.my_face.weight", f"transformer.{UNET}.to_q", "up"),
    (f"{UNET}.to_q.lora_magnitude_vector.my_face.weight", f"{UNET}.to_q", "dora_scale"),
    (f"unet.{UNET}.to_q.lora.down.weight", f"unet.{UNET}.to_q", "down"),
    (f"unet.{UNET}.processor.to_q_lora.up.weight", f"unet.{UNET}.processor.to_q", "up"),
    (f"{UNET}.to_q.lora_down.weight", f"{UNET}.to_q", "down"),
    ("text_encoder.q_proj.lora_linear_layer.up.weight", "text_encoder.q_proj", "up"),
    ("blocks.0.attn.qkv_x.lora_A", "blocks.0.attn.qkv_x", "down"),
    (f"{KOHYA}.lora_magnitude_vector", KOHYA, "dora_scale"),
    (f"{KOHYA}.hada_w1_a", KOHYA, "foreign"),
    (f"{KOHYA}.lokr_w2", KOHYA, "foreign"),
    (f"{KOHYA}.oft_blocks", KOHYA, "foreign"),
    (f"{KOHYA}.diff_b", KOHYA, "foreign"),
]


@pytest.mark.parametrize(("name", "stem", "role"), NAMES)
def test_every_dialect_is_parsed(name: str, stem: str, role: str) -> None:
    assert dialects.parse(name) == (stem, role)


@pytest.mark.parametrize("name", ["model.diffusion_model.input_blocks.0.0.weight", ".alpha", "emb_params", ""])
def test_other_names_are_not_parsed(name: str) -> None:
    assert dialects.parse(name) is None


def test_foreign_kinds_are_named() -> None:
    assert dialects.foreign_kind("x.hada_w1_a") == "LoHa"
    assert dialects.foreign_kind("x.lokr_w1") == "LoKr"
    assert dialects.foreign_kind("x.lora_down.weight") is None


PREFERENCES = [
    (
        ["diffusion_model.input_blocks.1.1.q", "lora_unet_input_blocks_1_1_q", KOHYA, "unet.x", "lycoris_x"],
        KOHYA,
    ),
    (
        ["diffusion_model.input_blocks.0.0", "lora_unet_input_blocks_0_0", "lora_unet_conv_in"],
        "lora_unet_conv_in",
    ),
    (["diffusion_model.middle_block.1.q", "lora_unet_middle_block_1_q"], "lora_unet_middle_block_1_q"),
    (
        ["transformer.double_blocks.0.q", "diffusion_model.double_blocks.0.q", "lora_unet_double_blocks_0_q"],
        "diffusion_model.double_blocks.0.q",
    ),
    (["text_encoders.clip_l.q", "lora_te1_text_model_q", "lora_te_text_model_q"], "lora_te_text_model_q"),
    (["text_encoders.clip_g.q", "lora_te2_text_model_q", "text_encoder_2.q"], "lora_te2_text_model_q"),
    (["zebra", "apple"], "apple"),
]


@pytest.mark.parametrize(("candidates", "expected"), PREFERENCES)
def test_preferred_stem(candidates: list[str], expected: str) -> None:
    assert keys.preferred(candidates) == keys.preferred(reversed(candidates)) == expected


def test_no_candidate_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one name"):
        keys.preferred([])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj", 2),
        ("diffusion_model.input_blocks.1.1.transformer_blocks.0.ff.net.0.proj.weight", 2),
        ("diffusion_model.input_blocks.1.1.transformer_blocks.0.ff.net.0.proj", 2),
        ("diffusion_model.input_blocks.1.1.transformer_blocks.0.ff.net.2.weight", 1),
        ("lora_unet_mid_block_attentions_0_proj_in", 1),
        ("staff_net_0_proj", 1),
        ("diffusion_model.joint_blocks.0.x_block.attn.qkv", 3),
        ("lora_unet_double_blocks_0_img_attn_qkv", 3),
        ("diffusion_model.double_blocks.0.txt_attn.qkv.weight", 3),
        ("diffusion_model.joint_blocks.0.x_block.attn2.qkv", 3),
        ("diffusion_model.double_blocks.0.txt_attn.proj", 1),
        (KOHYA, 1),
    ],
)
def test_parts(name: str, expected: int) -> None:
    assert keys.fused_parts(name) == expected


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        (f"unet.{UNET}.to_q", KOHYA),
        (f"unet.{UNET}.processor.to_q", KOHYA),
        (f"{UNET}.to_q", KOHYA),
        (f"{UNET}.processor.to_out", KOHYA.replace("to_q", "to_out_0")),
        ("text_encoder.text_model.encoder.layers.0.q_proj", "lora_te_text_model_encoder_layers_0_q_proj"),
        ("text_encoder_2.text_model.encoder.layers.0.q_proj", "lora_te2_text_model_encoder_layers_0_q_proj"),
        ("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q", "lora_te3_encoder_block_0_layer_0_SelfAttention_q"),
        ("text_model.encoder.layers.0.q_proj", "lora_te_text_model_encoder_layers_0_q_proj"),
        (f"base_model.model.{UNET}.to_q", KOHYA),
        (f"unet.base_model.model.{UNET}.to_out.0", KOHYA.replace("to_q", "to_out_0")),
        ("base_model.model.text_model.encoder.layers.0.q_proj", "lora_te_text_model_encoder_layers_0_q_proj"),
        ("unet.conv_in", "lora_unet_conv_in"),
        ("base_model.model.time_embedding.linear_1", "lora_unet_time_embedding_linear_1"),
        ("unet.transformer_blocks.0.attn1.to_q", None),
        (KOHYA, None),
        ("diffusion_model.double_blocks.0", None),
    ],
)
def test_kohya_names(stem: str, expected: str | None) -> None:
    assert dialects.to_kohya(stem) == expected


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        (f"unet.{UNET}.to_q", KOHYA),
        (KOHYA, KOHYA),
        ("base_model.model.transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.attn.to_q"),
        ("base_model.model.single_transformer_blocks.0.q", "transformer.single_transformer_blocks.0.q"),
        ("base_model.model.diffusion_model.blocks.0.q", "diffusion_model.blocks.0.q"),
        ("base_model.model.blocks.0.attn1.Wqkv", "base_model.model.blocks.0.attn1.Wqkv"),
        ("transformer.transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.attn.to_q"),
        ("diffusion_model.blocks.0.q", "diffusion_model.blocks.0.q"),
    ],
)
def test_names_that_comfyui_knows(stem: str, expected: str) -> None:
    assert dialects.to_host(stem) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (KOHYA, False),
        ("diffusion_model.x.weight", False),
        ("lora_te_text_model_x", True),
        ("lora_te2_text_model_x", True),
        ("clip_l.transformer.text_model.x.weight", True),
        ("text_encoders.clip_l.x", True),
    ],
)
def test_text_encoder_names(name: str, text: bool) -> None:
    assert keys.is_text(name) is text
