"""Other tools' files merged into a real model: the stock loader is the yardstick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.lora
import comfy.sd
import comfy.utils
import pytest
import torch
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.files.shown import NOTE
from blocklora.blocklora_core.host.weights.names import clip_stems, model_stems, model_weights, preferred_stems
from blocklora.blocklora_core.host.weights.patching import apply_merge

from tests.foreign_files import (
    WRITERS,
    Known,
    Scale,
    Writer,
    diffusers_bin,
    diffusers_old,
    ed_lora,
    kohya,
    named,
    write,
)
from tests.host.any_model import MODELS, build
from tests.host.tiny import Base, adaptable, patched

# ComfyUI's loader has no names for the others, or does not read their scale.
STOCK_READS = (kohya, diffusers_old, diffusers_bin)


def modules(base: Base) -> Iterator[tuple[str, str, str]]:
    """Side, diffusers' module and ComfyUI's weight name of all that diffusers has names for."""
    for module, weight in comfy.utils.unet_to_diffusers(base.model.model.model_config.unet_config).items():
        if module.endswith(".weight"):
            yield "unet", module.removesuffix(".weight"), f"diffusion_model.{weight}"
    start = "clip_l.transformer."
    for weight in base.clip.cond_stage_model.state_dict():
        if weight.startswith(start):
            yield "text_encoder", weight.removeprefix(start).removesuffix(".weight"), weight


@pytest.fixture(scope="module")
def layers(base: Base) -> list[Known]:
    shapes = adaptable(base)
    weights = {**model_stems(base.model), **clip_stems(base.clip)}
    stems = {weights[stem]: stem for stem in shapes if ".attn" in weights[stem] or stem.startswith("lora_te")}
    random = torch.Generator().manual_seed(3)
    found = []
    for side, module, weight in modules(base):
        if weight in stems:
            m, n = shapes[stems[weight]]
            up, down = torch.randn(m, 4, generator=random) * 0.1, torch.randn(4, n, generator=random) * 0.1
            found.append(Known(side, module, stems[weight], up, down, alpha=len(found) % 3 + 1.0))
    assert len(found) == len(stems)
    assert {known.side for known in found} == {"unet", "text_encoder"}
    return found


def weights(base: Base, model: Any, clip: Any) -> dict[str, torch.Tensor]:
    """The patched weights of MODEL and CLIP, each other than the base's."""
    found = {}
    for before, after in ((base.model, model), (base.clip.patcher, clip.patcher)):
        assert after.patches
        old, new = patched(before, after.patches), patched(after, after.patches)
        assert not [name for name in old if torch.equal(old[name], new[name])]
        found.update(new)
    return found


def stock_weights(base: Base, path: Path) -> dict[str, torch.Tensor]:
    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    return weights(base, *comfy.sd.load_lora_for_models(base.model, base.clip, state, 1.0, 1.0))


def as_kohya(folder: Path, layers: list[Known], scale: Scale) -> Path:
    """The same layers at the same scales in the form that every loader reads."""
    tensors = named(layers, lambda known: known.stem, ".lora_down.weight", ".lora_up.weight")
    alphas = {f"{known.stem}.alpha": torch.tensor(scale(known) * known.rank) for known in layers}
    return write(folder / "yardstick.safetensors", tensors | alphas)


@pytest.mark.parametrize(("writer", "scale"), WRITERS, ids=lambda one: one.__name__)
def test_an_import_changes_the_weights_as_the_stock_loader_does(
    base: Base, layers: list[Known], tmp_path: Path, writer: Writer, scale: Scale
) -> None:
    path = writer(tmp_path, layers)
    lora = load(path)
    applied = apply_merge((lora,), base.model, base.clip, "per_row")
    assert applied.unused == {} and applied.model_layers + applied.clip_layers == len(layers)
    ours = weights(base, applied.model, applied.clip)
    stock = stock_weights(base, path if writer in STOCK_READS else as_kohya(tmp_path, layers, scale))
    assert ours.keys() == stock.keys() and len(ours) == len(layers)
    for name, weight in stock.items():
        # The products have other shapes, so sums may round in another order, and a float16 to its neighbour.
        step = torch.finfo(weight.dtype).eps * weight.double().abs() + 1e-6
        assert bool(((ours[name].double() - weight.double()).abs() <= step).all()), name


def check_model(base: Base, path: Path, layers: int) -> None:
    """Our merge of a file without CLIP layers leaves CLIP alone and changes MODEL as the stock loader does."""
    applied = apply_merge((load(path),), base.model, base.clip, "per_row")
    assert (applied.unused, applied.model_layers, applied.clip_layers) == ({}, layers, 0)
    assert applied.clip.patcher.patches == {}
    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    stock, _ = comfy.sd.load_lora_for_models(base.model, base.clip, state, 1.0, 1.0)
    check_same(base.model, applied.model, stock, layers)


def check_same(before: Any, ours: Any, stock: Any, changed: int) -> None:
    old, new = patched(before, ours.patches), patched(ours, ours.patches)
    assert ours.patches.keys() == {key if isinstance(key, str) else key[0] for key in stock.patches}
    assert len([name for name in old if not torch.equal(old[name], new[name])]) == len(new) == changed
    for name, weight in patched(stock, ours.patches).items():
        torch.testing.assert_close(new[name].double(), weight.double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_files_without_clip_layers(
    base: Base, layers: list[Known], tmp_path: Path, dtype: torch.dtype
) -> None:
    unet = [known for known in layers if known.side == "unet"]
    tensors = named(unet, lambda known: known.stem, ".lora_down.weight", ".lora_up.weight", ".alpha")
    halves = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    check_model(base, write(tmp_path / "hero.safetensors", halves), len(unet))


def test_clip_layers_without_a_clip_are_reported(base: Base, layers: list[Known], tmp_path: Path) -> None:
    lora = load(kohya(tmp_path, layers))
    applied = apply_merge((lora,), base.model, None, "per_row")
    texts = {known.stem for known in layers if known.side == "text_encoder"}
    assert texts and {label: set(stems) for label, stems in applied.unused.items()} == {lora.label: texts}


@pytest.fixture(scope="module")
def convolutions(base: Base) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(weight.shape) for name, weight in base.model.model.state_dict().items()}
    stems = preferred_stems(model_stems(base.model))
    found = {stem: shapes[name] for name, stem in stems.items() if len(shapes.get(name, ())) == 4}
    assert {shape[2:] for shape in found.values()} == {(1, 1), (3, 3)}
    return found


def locon(shapes: dict[str, tuple[int, ...]], tucker: bool, ones: bool) -> dict[str, torch.Tensor]:
    """kohya's and LyCORIS' tensors. tucker: 3x3 kernels in a third one; ones: sizes of 1x1 kernels are written."""
    random, rank, tensors = torch.Generator().manual_seed(4), 3, {}
    for stem, (m, n, *kernel) in shapes.items():
        unit = [1, 1] if ones or kernel != [1, 1] else []
        split = tucker and kernel != [1, 1]
        tensors[f"{stem}.lora_up.weight"] = torch.randn(m, rank, *unit, generator=random) * 0.1
        inner = [1, 1] if split else [*kernel][: len(unit)]
        tensors[f"{stem}.lora_down.weight"] = torch.randn(rank, n, *inner, generator=random) * 0.1
        if split:
            tensors[f"{stem}.lora_mid.weight"] = torch.randn(rank, rank, *kernel, generator=random)
        tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    return tensors


@pytest.mark.parametrize(("tucker", "ones"), [(False, True), (False, False), (True, True)])
def test_convolutions_change_as_the_stock_loader_changes_them(
    base: Base, convolutions: dict[str, tuple[int, ...]], tmp_path: Path, tucker: bool, ones: bool
) -> None:
    path = write(tmp_path / "hero.safetensors", locon(convolutions, tucker, ones))
    check_model(base, path, len(convolutions))


def test_convolutions_written_as_matrices_change_as_the_stock_loader_changes_them(
    base: Base, convolutions: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    tensors = {
        name: value.flatten(1) if value.ndim == 4 else value for name, value in locon(convolutions, False, True).items()
    }
    check_model(base, write(tmp_path / "hero.safetensors", tensors), len(convolutions))


def transformer_layers(model: Any) -> dict[str, torch.Tensor]:
    """A LoRA of every matrix, by the names that diffusers has: some are pieces of one of ComfyUI's weights."""
    shapes = model_weights(model).shapes
    pieces = {stem: piece for stem, piece in model_weights(model).pieces.items() if stem.startswith("transformer.")}
    fused = {piece.weight for piece in pieces.values()}
    wholes = {name: stem for stem, name in model_stems(model).items() if stem.startswith("transformer.")}
    matrices = [name for name in wholes if name not in fused and len(shapes[name]) == 2]
    found = [(wholes[name], shapes[name][0], name) for name in matrices]
    found += [(stem, len(piece.rows), piece.weight) for stem, piece in pieces.items()]
    random, tensors = torch.Generator().manual_seed(6), {}
    for stem, rows, name in found:
        tensors[f"{stem}.lora_A.weight"] = torch.randn(2, shapes[name][1], generator=random) * 0.1
        tensors[f"{stem}.lora_B.weight"] = torch.randn(rows, 2, generator=random) * 0.1
    return tensors


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_name_is_of_something_that_the_model_has(name: str) -> None:
    weights = model_weights(build(name))
    assert set(weights.stems.values()) <= set(weights.shapes)
    assert all(piece.rows.stop <= weights.shapes[piece.weight][0] for piece in weights.pieces.values())
    assert bool(weights.pieces) == (name in ("flux", "sd3", "lumina2"))


@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_layers_of_pieces_change_the_fused_weight_as_the_stock_loader_does(name: str, tmp_path: Path) -> None:
    model = build(name)
    tensors = transformer_layers(model)
    lora = load(write(tmp_path / "hero.safetensors", tensors))
    pieces = model_weights(model).pieces
    assert [stem for stem in lora.layers if stem in pieces]
    stock = model.clone()
    stems = comfy.lora.model_lora_keys_unet(model.model, {})
    stock.add_patches(comfy.lora.load_lora(dict(tensors), stems))
    applied = apply_merge((lora,), model, None, "per_row")
    assert applied.unused == {}
    check_same(model, applied.model, stock, applied.model_layers)
    again = load(save(tmp_path / "again.safetensors", lora, dtype=torch.float32))
    check_same(model, apply_merge((again,), model, None, "per_row").model, stock, applied.model_layers)


def test_a_fused_weight_and_a_piece_of_it_are_refused(tmp_path: Path) -> None:
    model = build("flux")
    stem, piece = next(iter(model_weights(model).pieces.items()))
    rows, width = model_weights(model).shapes[piece.weight]
    shapes = {stem: len(piece.rows), piece.weight.removesuffix(".weight"): rows}
    tensors = {f"{name}.lora_A.weight": torch.ones(1, width) for name in shapes}
    tensors |= {f"{name}.lora_B.weight": torch.ones(size, 1) for name, size in shapes.items()}
    lora = load(write(tmp_path / "hero.safetensors", tensors))
    with pytest.raises(ValueError, match=r"hero.*: expected one layer for each row of .* got several"):
        apply_merge((lora,), model, None, "per_row")


def test_the_load_node_tells_what_it_leaves_out(pack: ModuleType, layers: list[Known], folders: Path) -> None:
    loader = {node.__name__: node for node in pack.NODES}["BlockLoRALoad"]
    tensors = named(layers[:1], lambda known: known.stem, ".lora_down.weight", ".lora_up.weight")
    strange = {f"{layers[0].stem}.surprise": torch.ones(1)}
    write(folders / "models" / "loras" / "other.safetensors", tensors | strange)
    output = loader.execute("other.safetensors", 1.0)
    assert set(output.result[0][0].layers) == {layers[0].stem}
    assert "1 tensors are part of no whole layer" in "\n".join(output.ui["text"])


def test_prompts_understand_an_ed_lora_s_name(base: Base, layers: list[Known], tmp_path: Path) -> None:
    lora = load(ed_lora(tmp_path, layers))
    applied = apply_merge((lora,), base.model, base.clip, "per_row")
    assert applied.tokens == ("<hero>",)
    sections = applied.clip.tokenize("a <hero> smiling")["l"]
    read = [torch.stack([token for token, *_ in part if isinstance(token, torch.Tensor)]) for part in sections]
    crossed = [known for known in layers if known.module.endswith("attn2.to_q")]
    assert len(read) == len(crossed) > 1, "every cross-attention layer reads its own vectors"
    assert torch.equal(torch.stack(read), lora.embeddings["clip_l"])


def test_an_ed_lora_for_more_layers_than_the_model_has_is_refused(
    base: Base, layers: list[Known], tmp_path: Path
) -> None:
    lora = load(ed_lora(tmp_path, layers))
    vectors = lora.embeddings["clip_l"]
    more = replace(lora, embeddings={"clip_l": torch.cat([vectors, vectors])})
    with pytest.raises(ValueError, match=r"Layer-wise concept tokens: expected \d+ layers, as this model has"):
        apply_merge((more,), base.model, base.clip, "per_row")


def test_the_load_node_tells_the_trigger_words_and_the_note(
    pack: ModuleType, layers: list[Known], folders: Path
) -> None:
    loader = {kind.__name__: kind for kind in pack.NODES}["BlockLoRALoad"]
    loras = folders / "models" / "loras"
    tensors = named(layers, lambda known: known.stem, ".lora_down.weight", ".lora_up.weight")
    write(loras / "face.safetensors", tensors, {"modelspec.trigger_phrase": "ohwx man"})
    write(loras / "mute.safetensors", tensors)
    ed_lora(loras, layers)
    shown = {}
    for file in ("face.safetensors", "mute.safetensors", "hero.pth"):
        output = loader.execute(file, 1.0)
        shown[file] = output.result[1:]
        assert output.ui["text"] == (output.result[3],)
    assert shown["face.safetensors"][:2] == ("face", "ohwx man")
    assert "Write in the prompt: ohwx man" in shown["face.safetensors"][2]
    assert shown["mute.safetensors"][:2] == ("mute", "")
    assert "does not tell its trigger words" in shown["mute.safetensors"][2]
    assert shown["hero.pth"][:2] == ("<hero>", "<hero>")
    assert load(loras / "hero.pth").metadata[NOTE] in shown["hero.pth"][2]


def test_a_changed_peft_configuration_loads_again(pack: ModuleType, layers: list[Known], folders: Path) -> None:
    loader = {kind.__name__: kind for kind in pack.NODES}["BlockLoRALoad"]
    path = next(writer for writer, _ in WRITERS if writer.__name__ == "peft")(folders / "models" / "loras", layers)
    before = loader.fingerprint_inputs("hero/adapter_model.safetensors", 1.0)
    (path.parent / "adapter_config.json").write_text("{}", "utf-8")
    assert loader.fingerprint_inputs("hero/adapter_model.safetensors", 1.0) != before
