"""A merge written as one LoRA: stock loaders, stock prompts and ComfyUI's own checkpoint saver are the yardsticks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.sd
import comfy.utils
import pytest
import safetensors.torch
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.concept.gram import Gram, Grams
from blocklora.blocklora_core.files.io import load, read_header, save
from blocklora.blocklora_core.files.shown import with_words
from blocklora.blocklora_core.host.weights.names import model_stems
from blocklora.blocklora_core.host.weights.patching import apply_merge
from comfy.sd1_clip import SD1Tokenizer
from comfy_extras.nodes_model_merging import CheckpointSave

from tests.host.dynamic import WANTED
from tests.host.tiny import Base, adaptable, make_lora, patched

Export = Callable[..., Any]
Weights = dict[str, torch.Tensor]


def with_grams(lora: BlockLoRA, seed: int) -> BlockLoRA:
    random = torch.Generator().manual_seed(seed)
    inputs: dict[str, Gram] = {}
    for name, layer in lora.layers.items():
        x = torch.randn(layer.in_features, 60, generator=random) + torch.randn(layer.in_features, 1, generator=random)
        inputs[name] = Gram.compress(x @ x.T / 60, 8)
    return replace(lora, grams=Grams(inputs, {name: name for name in inputs}))


@pytest.fixture(scope="module")
def stack(base: Base) -> tuple[BlockLoRA, ...]:
    stems = [*list(adaptable(base))[:6], *(stem for stem in adaptable(base) if stem.startswith("lora_te"))]
    named = enumerate(("<a>", "<b>", "c"))
    return tuple(with_grams(make_lora(base, name, slot, stems=stems), slot) for slot, name in named)


@pytest.fixture(scope="module")
def export(pack: ModuleType) -> Export:
    node = {kind.__name__: kind for kind in pack.NODES}["BlockLoRAExport"]

    def run(base: Base, stack: Any, method: str = "per_row", **more: Any) -> tuple[Path, str]:
        wishes = {"name": "x/all", "dtype": "auto", "max_rank": 0, "if_exists": "keep both", "overlap": "error", **more}
        path, report = node.execute(model=base.model, clip=base.clip, stack=stack, method=method, **wishes).result
        return Path(path), report

    return run


def changed(model: Any, clip: Any) -> Weights:
    return {**patched(model, model.patches), **patched(clip.patcher, clip.patcher.patches)}


def by_stock(base: Base, path: Path) -> Weights:
    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    return changed(*comfy.sd.load_lora_for_models(base.model, base.clip, state, 1.0, 1.0))


def by_merge(base: Base, stack: Any, method: str = "per_row") -> Weights:
    applied = apply_merge(stack, base.model, base.clip, method)
    return changed(applied.model, applied.clip)


def assert_close(got: Weights, expected: Weights, tolerance: float = 2e-6) -> None:
    assert got.keys() == expected.keys() and got
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("method", ["per_row", "fused", "affine", "ties"])
def test_the_stock_loader_gives_our_merge(base: Base, stack: Any, export: Export, folders: Path, method: str) -> None:
    path, report = export(base, stack, method)
    assert path == folders / "models" / "loras" / "x" / "all.safetensors"
    assert "the same change as the merge" in report
    expected = by_merge(base, stack, method)
    assert_close(by_stock(base, path), expected, 1e-5)
    assert_close(by_merge(base, (load(path),)), expected, 1e-5)


@pytest.mark.usefixtures("folders")
def test_the_report_tells_rank_size_and_dtype(base: Base, stack: Any, export: Export) -> None:
    path, report = export(base, stack)
    assert "3 concepts merged by per_row" in report and "rank 12, float16" in report
    assert f"{path.stat().st_size / 1e6:.1f} MB" in report
    path, report = export(base, stack, "fused")
    assert "rank 12, float32" in report


@pytest.mark.usefixtures("folders")
def test_a_cut_tells_its_loss(base: Base, stack: Any, export: Export) -> None:
    path, report = export(base, stack, max_rank=5)
    expected, got = by_merge(base, stack), by_stock(base, path)
    plain = {**patched(base.model, got), **patched(base.clip.patcher, got)}
    gap = sum(float((got[name] - expected[name]).double().square().sum()) for name in got)
    whole = sum(float((plain[name] - expected[name]).double().square().sum()) for name in got)
    assert f"differs from the merge by {(gap / whole) ** 0.5:.1%}"[:-2] in report
    assert "rank 5, float32" in report and "An exact file would have rank 12" in report
    assert {layer.rank for layer in load(path).layers.values()} == {5}


@pytest.mark.usefixtures("folders")
def test_the_file_lists_its_members(base: Base, stack: Any, export: Export) -> None:
    path, _ = export(base, (stack[0].with_strength(0.5), *stack[1:]))
    entries = read_header(path)["__metadata__"]
    record = json.loads(entries["blocklora.export"])
    assert record["method"] == "per_row"
    assert [(m["concept"], m["slot"], m["strength"]) for m in record["members"]] == [
        ("<a>", 0, 0.5), ("<b>", 1, 1.0), ("c", 2, 1.0),
    ]  # fmt: skip
    assert entries["modelspec.trigger_phrase"] == "<a> man, <b> man, c man"
    assert load(path).slot is None and load(path).base == stack[0].base


def test_stock_prompts_understand_the_tokens(base: Base, stack: Any, export: Export, folders: Path) -> None:
    _, report = export(base, stack)
    root = folders / "models" / "embeddings"
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*")) == [
        f"x/all/{name}.safetensors" for name in "abc"
    ]
    stock = base.clip.clone()
    stock.tokenizer = SD1Tokenizer(embedding_directory=[str(root)])
    ours = apply_merge(stack, base.model, base.clip, "per_row").clip
    unpatched = copy.copy(ours)
    unpatched.patcher = stock.patcher
    for lora, word in zip(stack, ("x/all/a", "x/all/b", "x/all/c"), strict=True):
        assert f"{lora.concept.name}: write embedding:{word} in stock prompts" in report
        vectors = [
            token
            for clip, prompt in ((stock, f"a embedding:{word} man"), (unpatched, f"a {lora.concept.name} man"))
            for token, *_ in clip.tokenize(prompt)["l"][0]
            if isinstance(token, torch.Tensor)
        ]
        assert len(vectors) == 4
        assert torch.equal(torch.stack(vectors[:2]).float(), torch.stack(vectors[2:]).float())


def test_two_names_that_make_one_file_name_get_a_file_each(
    base: Base, stack: Any, export: Export, folders: Path
) -> None:
    _, report = export(base, (stack[0], stack[1].renamed("a")))
    words = [line.split("write ")[1].split(" in")[0] for line in report.splitlines() if "write " in line]
    assert len(set(words)) == 2
    files = [folders / "models" / "embeddings" / f"{word.removeprefix('embedding:')}.safetensors" for word in words]
    for file, lora in zip(files, stack, strict=False):
        assert torch.equal(safetensors.torch.load_file(file)["emb_params"], lora.embeddings["clip_l"])


def test_layer_wise_tokens_are_named_as_left_out(base: Base, stack: Any, export: Export, folders: Path) -> None:
    layerwise = replace(stack[0], embeddings={"clip_l": torch.zeros(4, 2, 768)})
    _, report = export(base, (layerwise,))
    assert "No embedding file can hold the layer-wise tokens of <a>" in report
    assert not list((folders / "models" / "embeddings").rglob("*.*"))


def test_what_a_text_encoder_reads_by_name_is_named_as_left_out(base: Base, export: Export) -> None:
    stems = [stem for stem in adaptable(base) if "attn" in stem]
    bare = [make_lora(base, name, seed, scheme=None, stems=stems) for seed, name in enumerate(("ada", "ben"))]
    plain = tuple(
        with_words(with_grams(replace(lora, embeddings={}), seed), f"{lora.concept.name}word")
        for seed, lora in enumerate(bare)
    )
    apart, told = export(base, plain, "auto")
    summed, plainly = export(base, plain, "task_sum")
    assert "what the text encoder learnt of ada, ben" in told and "the same change as the merge" not in told
    assert "text encoder" not in plainly and "the same change as the merge" in plainly
    parts = [{key.startswith("lora_te") for key in safetensors.torch.load_file(file)} for file in (apart, summed)]
    assert parts == [{False}, {False, True}]


def test_keeps_both_or_overwrites(base: Base, stack: Any, export: Export, folders: Path) -> None:
    first, again = export(base, stack[:1])[0], export(base, stack[1:])[0]
    assert (first.name, again.name) == ("all.safetensors", "all_02.safetensors")
    assert (folders / "models" / "embeddings" / "x" / "all_02" / "b.safetensors").is_file()
    assert export(base, stack[1:], if_exists="overwrite")[0] == first
    assert_close(by_stock(base, first), by_stock(base, again), 0)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"name": "x/"}, "expected a file name"),
        ({"name": "../out"}, "inside the loras folder"),
        ({"name": "/tmp/out"}, "inside the loras folder"),
        ({"dtype": "int4"}, "expected auto or one of float16"),
        ({"method": "fused", "stack": "plain"}, "carry its Grams"),
        ({"stack": "silent"}, "expected layers to write"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    base: Base, stack: Any, export: Export, folders: Path, wish: dict[str, Any], message: str
) -> None:
    stacks = {
        "plain": tuple(replace(lora, grams=None) for lora in stack),
        "silent": (stack[0].with_strength(0.0),),
    }
    with pytest.raises(ValueError, match=message):
        export(base, stacks.get(wish.pop("stack", ""), stack), **wish)
    assert not [path for path in folders.rglob("*") if path.is_file()]


def test_a_full_disk_leaves_no_half_file(
    base: Base, stack: Any, export: Export, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export(base, stack)
    assert not [path for path in folders.rglob("*") if path.is_file()]


def test_diffusers_names_and_back(base: Base, stack: Any, folders: Path) -> None:
    """Our file in diffusers' naming, read again, changes the weights as before."""
    unet = replace(stack[0], layers={n: x for n, x in stack[0].layers.items() if "_attn" in n and "_te_" not in n})
    sound = save(folders / "ours.safetensors", unet)
    dotted = {
        model_stems(base.model)[stem]: stem.replace(".processor", "")
        for stem in model_stems(base.model)
        if stem.startswith("unet.")
    }
    tensors = {}
    for name, value in safetensors.torch.load_file(sound).items():
        stem, _, role = name.partition(".lora_")
        if role:
            new = dotted[model_stems(base.model)[stem]]
            tensors[f"{new}.{'lora_A' if role.startswith('down') else 'lora_B'}.weight"] = value
    assert len(tensors) == 2 * len(unet.layers) > 0
    safetensors.torch.save_file(tensors, folders / "diffusers.safetensors")
    back = load(folders / "diffusers.safetensors")
    assert back.layers.keys() == unet.layers.keys() and back.slot is None
    ours, got = apply_merge((unet,), base.model, None), apply_merge((back,), base.model, None)
    assert_close(patched(got.model, got.model.patches), patched(ours.model, ours.model.patches))


def test_the_stock_checkpoint_saver_bakes_a_merge(base: Base, stack: Any, folders: Path) -> None:
    applied = apply_merge(stack, base.model, base.clip, "fused")
    with torch.inference_mode():
        CheckpointSave().save(applied.model, applied.clip, base.vae, "checkpoints/baked")
    (path,) = (folders / "output" / "checkpoints").glob("*.safetensors")
    model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=[])
    names = [*applied.model.patches, *applied.clip.patcher.patches]
    assert_close(
        {**patched(model, names), **patched(clip.patcher, names)},
        by_merge(base, stack, "fused"),
        1e-3 if WANTED else 1e-6,
    )
