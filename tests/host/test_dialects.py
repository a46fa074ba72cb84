"""Every name that ComfyUI's loader knows, in every spelling, on every architecture: the loader is the yardstick.

Set BLOCKLORA_SWEEP=1 for all spellings of all names' starts; else each start is tried in one spelling, in turn.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.model_patcher
import pytest
import safetensors.torch
import torch
from blocklora.blocklora_core.files.io import load
from blocklora.blocklora_core.host.weights.names import model_weights
from blocklora.blocklora_core.host.weights.patching import Applied, NothingFitsError, apply_merge

from tests.host.any_model import CPU, build
from tests.host.more_models import NAMES, any_of

Tensors = dict[str, torch.Tensor]
Weights = Mapping[str, torch.Tensor]

RANDOM = torch.Generator().manual_seed(9)

# Endings of down and up that ComfyUI's loader knows.
SPELLINGS = (
    (".lora_down.weight", ".lora_up.weight"), (".lora_A.weight", ".lora_B.weight"), (".lora_A", ".lora_B"),
    (".lora.down.weight", ".lora.up.weight"), ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
)  # fmt: skip
PLAIN, PEFT = SPELLINGS[:2]

STARTS = re.compile(r"(lora_unet_|lora_transformer_|lora_prior_unet_|lycoris_|[a-z_]+\.)")


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=RANDOM) * 0.1


def pair(stem: str, shape: tuple[int, ...], spelling: tuple[str, str] = PEFT) -> Tensors:
    m, n, *kernel = shape
    return {stem + spelling[0]: noise(2, n, *kernel), stem + spelling[1]: noise(m, 2, *[1] * len(kernel))}


def computed(patcher: Any) -> Weights:
    """Weight name -> what its patches make of it."""
    weights = patcher.model.state_dict()
    return {
        name: comfy.lora.calculate_weight(list(patches), weights[name].clone().float(), name)
        for name, patches in patcher.patches.items()
    }


def by_stock(model: Any, tensors: Tensors) -> Weights:
    """What the stock loader makes of a file; LoraLoader does just this."""
    patcher = model.clone()
    named = comfy.lora_convert.convert_lora(dict(tensors))
    patcher.add_patches(
        comfy.lora.load_lora(named, comfy.lora.model_lora_keys_unet(model.model, {}), log_missing=False)
    )
    return computed(patcher)


def by_us(model: Any, tensors: Tensors, folder: Path) -> tuple[Weights, Applied]:
    safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "a.safetensors")
    applied = apply_merge((load(folder / "a.safetensors"),), model, None, "per_row")
    return computed(applied.model), applied


def check_as_stock(model: Any, tensors: Tensors, folder: Path) -> Applied:
    ours, applied = by_us(model, tensors, folder)
    stock, before = by_stock(model, tensors), model.model.state_dict()
    assert stock and ours.keys() == stock.keys()
    for name, weight in stock.items():
        assert not torch.equal(weight, before[name]), name
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-5, msg=lambda text, at=name: f"{at}: {text}")
    return applied


def dialects(model: Any) -> dict[str, dict[str, tuple[int, ...]]]:
    """Start of a name -> stem -> shape of its layer, of a few layers of each way to map one."""
    shapes = {name: tuple(weight.shape) for name, weight in model.model.state_dict().items()}
    found: dict[str, dict[tuple[Any, ...], list[tuple[str, tuple[int, ...]]]]] = defaultdict(lambda: defaultdict(list))
    for stem, target in comfy.lora.model_lora_keys_unet(model.model, {}).items():
        name, offset, *function = (target, None) if isinstance(target, str) else target
        shape = list(shapes.get(name, ()))
        # Of some variants of an architecture the host lists rows that the weight has not.
        if len(shape) < 2 or (offset is not None and sum(offset[1:]) > shape[offset[0]]):
            continue
        if offset is not None:
            shape[offset[0]] = offset[2]
        start = match[0] if (match := STARTS.match(stem)) else ""
        found[start][len(shape), offset and offset[1] > 0, bool(function)].append((stem, tuple(shape)))
    return {
        start: dict(one for ways in kinds.values() for one in ways[:: max(len(ways) // 3, 1)])
        for start, kinds in found.items()
    }


def distinct(stems: Mapping[str, tuple[int, ...]], targets: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of stems that are the same weight's, one: a file holds one layer of each, or layers of its pieces."""
    seen: dict[str, str] = {}
    fused = {targets[stem][0] for stem in stems if not isinstance(targets[stem], str) and targets[stem][1]}
    for stem in stems:
        if targets[stem] not in fused:
            seen.setdefault(repr(targets[stem]), stem)
    return {stem: stems[stem] for stem in seen.values()}


def combinations(model: Any) -> list[tuple[dict[str, tuple[int, ...]], tuple[str, str]]]:
    targets = comfy.lora.model_lora_keys_unet(model.model, {})
    starts = [distinct(stems, targets) for _, stems in sorted(dialects(model).items())]
    if os.environ.get("BLOCKLORA_SWEEP"):
        return [(stems, spelling) for stems in starts for spelling in SPELLINGS]
    return [(stems, SPELLINGS[at % len(SPELLINGS)]) for at, stems in enumerate(starts)]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_in_every_spelling_changes_the_weights_as_the_stock_loader_does(name: str, tmp_path: Path) -> None:
    model = any_of(name)
    tried = combinations(model)
    assert len(tried) >= 2
    for stems, spelling in tried:
        tensors = {key: value for stem, shape in stems.items() for key, value in pair(stem, shape, spelling).items()}
        assert check_as_stock(model, tensors, tmp_path).unused == {}


def lists_swaps(model: Any) -> dict[str, str]:
    """Stem -> weight, of the layers that the host maps with a function of the change."""
    targets = comfy.lora.model_lora_keys_unet(model.model, {})
    return {stem: target[0] for stem, target in targets.items() if len(target) == 3 and not isinstance(target, str)}


@pytest.mark.parametrize("name", ["flux", "sd3"])
@pytest.mark.parametrize("ending", ["alpha", "dora_scale", "diff"])
def test_layers_that_the_host_maps_with_a_function_are_kept(name: str, ending: str, tmp_path: Path) -> None:
    model = any_of(name)
    shapes = {key: tuple(weight.shape) for key, weight in model.model.state_dict().items()}
    swapped = {
        s: shapes[n] for s, n in lists_swaps(model).items() if n.endswith("weight") and s.startswith("transformer.")
    }
    assert len(swapped) == (1 if name == "flux" else 2)
    for stem, shape in swapped.items():
        tensors = pair(stem, shape, PLAIN) | {f"{stem}.alpha": torch.tensor(3.0)}
        tensors |= {f"{stem}.dora_scale": 1 + noise(1, shape[1])} if ending == "dora_scale" else {}
        check_as_stock(model, {f"{stem}.diff": noise(*shape)} if ending == "diff" else tensors, tmp_path)


def test_a_row_block_of_a_swapped_layer_keeps_its_rows(tmp_path: Path) -> None:
    model = any_of("flux")
    stem, name = next((s, n) for s, n in lists_swaps(model).items() if n.endswith("weight"))
    tensors = pair(stem, tuple(model.model.state_dict()[name].shape))
    lora = load(_write(tmp_path, tensors))
    ours = apply_merge((lora,), model, None, "per_row").merged.members[0].layers[name].dense()
    half = len(ours) // 2
    plain = lora.layers[stem].dense()
    assert torch.allclose(ours, torch.cat([plain[half:], plain[:half]])) and not torch.allclose(ours, plain)


def _write(folder: Path, tensors: Tensors) -> Path:
    safetensors.torch.save_file(tensors, folder / "b.safetensors")
    return folder / "b.safetensors"


def with_start(tensors: Tensors, old: str, new: str) -> Tensors:
    return {f"{new}{name.removeprefix(old)}": value for name, value in tensors.items()}


def all_layers(model: Any, start: str) -> Tensors:
    """A layer of every matrix that the host knows under a name with this start."""
    shapes = dict(model_weights(model).shapes)
    tensors: Tensors = {}
    for stem, target in distinct(
        *[{s: t for s, t in model_weights(model).targets.items() if s.startswith(start)}] * 2
    ).items():
        name, offset = (target, None) if isinstance(target, str) else target[:2]
        shape = (offset[2] if offset else shapes[name][0], *shapes[name][1:])
        whole = isinstance(target, str) or offset is None
        if len(shape) >= 2 and (whole or sum(offset[1:]) <= shapes[name][0]):
            tensors |= pair(stem, shape)
    return tensors


@pytest.mark.parametrize("name", ["flux", "sd3"])
@pytest.mark.parametrize("start", ["base_model.model.", "transformer.base_model.model."])
def test_peft_s_names_of_all_layers_are_known(name: str, start: str, tmp_path: Path) -> None:
    model = any_of(name)
    tensors = all_layers(model, "transformer.")
    names, first = " ".join(tensors), "x_embedder" if name == "flux" else "pos_embed.proj"
    assert all(part in names for part in (first, "norm_out", "context_embedder", "time_text_embed", "proj_out"))
    ours, applied = by_us(model, with_start(tensors, "transformer.", start), tmp_path)
    stock = by_stock(model, tensors)
    assert ours.keys() == stock.keys() and applied.unused == {}
    for key, weight in stock.items():
        torch.testing.assert_close(ours[key], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["wan", "z-image", "qwen-image", "hunyuan-video", "chroma"])
@pytest.mark.parametrize("start", ["", "transformer.", "base_model.model."])
def test_names_of_the_network_s_own_are_known_by_any_start(name: str, start: str, tmp_path: Path) -> None:
    model = any_of(name)
    targets = model_weights(model).targets
    own = {
        stem: target
        for stem, target in targets.items()
        if stem.startswith("diffusion_model.") and stem + ".weight" == target
    }
    chosen = {
        stem: model_weights(model).shapes[name]
        for stem, name in own.items()
        if len(model_weights(model).shapes[name]) == 2
    }
    stems = list(chosen)[::4]
    tensors = {key: value for stem in stems for key, value in pair(stem, chosen[stem], SPELLINGS[-1]).items()}
    ours, applied = by_us(model, with_start(tensors, "diffusion_model.", start), tmp_path)
    stock = by_stock(model, tensors)
    assert stock and ours.keys() == stock.keys() and applied.unused == {}
    for key, weight in stock.items():
        torch.testing.assert_close(ours[key], weight, rtol=1e-4, atol=1e-5)


def test_wan_fun_s_names_are_converted_as_the_stock_loader_does(tmp_path: Path) -> None:
    stems = [f"lora_unet__blocks_0_{layer}" for layer in ("cross_attn_k", "self_attn_q", "ffn_0")]
    shapes = [(96, 96), (96, 96), (192, 96)]
    tensors = {
        key: value for stem, shape in zip(stems, shapes, strict=True) for key, value in pair(stem, shape, PLAIN).items()
    }
    assert check_as_stock(any_of("wan"), tensors, tmp_path).model_layers == 3


def test_uso_s_names_are_converted_as_the_stock_loader_does(tmp_path: Path) -> None:
    shapes = {
        "double_blocks.{}.processor.qkv_lora1": (288, 96), "double_blocks.{}.processor.proj_lora1": (96, 96),
        "double_blocks.{}.processor.qkv_lora2": (288, 96), "double_blocks.{}.processor.proj_lora2": (96, 96),
        "single_blocks.{}.processor.qkv_lora": (288, 96), "single_blocks.{}.processor.proj_lora": (96, 480),
    }  # fmt: skip
    tensors: Tensors = {}
    for stem, shape in shapes.items():
        last = 37 if stem.startswith("single") else 18
        tensors |= pair(stem.format(0), shape, (".down.weight", ".up.weight"))
        tensors |= pair(stem.format(last), shape, (".down.weight", ".up.weight"))
    applied = check_as_stock(any_of("flux"), tensors, tmp_path)
    (left,) = applied.unused.values()
    assert len(left) == 6 and all("37" in stem or "18" in stem for stem in left)


class EncoderClip:
    """A CLIP whose text encoder has one weight of a language model: what patching looks at."""

    layer_idx = None
    tokenizer = type("Tokenizer", (), {})()

    def __init__(self, name: str):
        self.cond_stage_model = root = torch.nn.Module()
        *path, last = name.split(".")
        for part in path:
            root.add_module(part, torch.nn.Module())
            root = getattr(root, part)
        root.register_parameter(last, torch.nn.Parameter(noise(8, 6), requires_grad=False))
        self.patcher = comfy.model_patcher.ModelPatcher(self.cond_stage_model, CPU, CPU)

    def clone(self) -> EncoderClip:
        copy = object.__new__(EncoderClip)
        copy.cond_stage_model, copy.patcher = self.cond_stage_model, self.patcher.clone()
        return copy


@pytest.mark.parametrize(
    "encoder", ["qwen3_4b", "gemma2_2b", "qwen25_7b", "llama", "umt5xxl", "t5xxl", "mt5xl", "clip_l"]
)
@pytest.mark.parametrize("strength_clip", [1.0, 0.25])
def test_layers_of_any_text_encoder_go_to_clip_at_its_strength(
    encoder: str, strength_clip: float, tmp_path: Path
) -> None:
    weight = f"{encoder}.transformer.model.layers.0.self_attn.q_proj"
    model, clip = build("sd15"), EncoderClip(f"{weight}.weight")
    tensors = pair(f"text_encoders.{weight}", (8, 6))
    lora = load(_write(tmp_path, tensors)).with_strength(1.0, strength_clip)
    applied = apply_merge((lora,), model, clip, "auto")
    assert (applied.model_layers, applied.clip_layers, applied.unused) == (0, 1, {})
    ((_, ours),) = computed(applied.clip.patcher).items()
    up, down = (tensors[f"text_encoders.{weight}.lora_{end}.weight"] for end in "BA")
    before = clip.cond_stage_model.state_dict()[f"{weight}.weight"]
    torch.testing.assert_close(ours, before + strength_clip * up @ down)


Q = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"  # (128, 128) in the tiny SD1.5


@pytest.mark.parametrize(
    "odd",
    [
        pair(Q.replace("to_q", "to_k"), (128, 64), PLAIN),
        {f"{Q.replace('to_q', 'to_k')}.diff": noise(64, 64)},
        {f"{Q}.diff_b": noise(128)},
        {f"{Q.replace('to_q', 'to_v')}.{word}": noise(2, 2) for word in ("lokr_w1", "lokr_w2")},
    ],
    ids=["another shape", "a difference of another shape", "a bias that the model has not", "a LoKr of another size"],
)
def test_one_layer_that_does_not_fit_is_told_and_the_rest_is_as_stock(odd: Tensors, tmp_path: Path) -> None:
    model = build("sd15")
    tensors = {**pair(Q, (128, 128), PLAIN), **pair(Q.replace("to_q", "to_out_0"), (128, 128), PLAIN), **odd}
    ours, applied = by_us(model, tensors, tmp_path)
    before, stock = model.model.state_dict(), by_stock(model, tensors)
    moved = {name: weight for name, weight in stock.items() if not torch.equal(weight, before[name])}
    assert len(moved) == 2 and ours.keys() == moved.keys()
    for name, weight in moved.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-5)
    ((told,),) = applied.unused.values()
    assert "expected" in told


def test_a_file_of_which_most_does_not_fit_is_of_another_base(tmp_path: Path) -> None:
    tensors = {
        **pair(Q, (128, 128)),
        **pair(Q.replace("to_q", "to_k"), (64, 64)),
        **pair(Q.replace("to_q", "to_v"), (64, 64)),
    }
    with pytest.raises(NothingFitsError, match="trained for another base"):
        by_us(build("sd15"), tensors, tmp_path)
