"""Other tools' files merged into a real model: the stock loader is the yardstick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.sd
import comfy.utils
import pytest
import torch
from blocklora.blocklora_core.files import load
from blocklora.blocklora_core.host.names import clip_stems, model_stems
from blocklora.blocklora_core.host.patching import apply_merge
from blocklora.blocklora_core.metadata import NOTE

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


def test_prompts_understand_an_ed_lora_s_name(base: Base, layers: list[Known], tmp_path: Path) -> None:
    lora = load(ed_lora(tmp_path, layers))
    applied = apply_merge((lora,), base.model, base.clip, "per_row")
    assert applied.tokens == ("<hero>",)
    (tokens,) = applied.clip.tokenize("a <hero> smiling")["l"]
    vectors = [token for token, *_ in tokens if isinstance(token, torch.Tensor)]
    assert torch.equal(torch.stack(vectors), lora.embeddings["clip_l"])


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
        shown[file] = (*output.result[1:], "\n".join(output.ui.as_dict()["text"]))
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
