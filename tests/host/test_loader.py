"""LoRAs that people have already: a list of files in one node, kept apart by what each sees."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.model_management
import comfy.sd
import pytest
import safetensors.torch
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.files.shown import called_by
from blocklora.blocklora_core.host.train.collect import CollectJob, collect
from blocklora.blocklora_core.host.use import kept_grams
from blocklora.blocklora_core.host.use.apart import keep_apart, solvable
from blocklora.blocklora_core.host.use.kept_grams import GramStore
from blocklora.blocklora_core.host.use.lora_list import find_lora, find_name, load_list
from blocklora.blocklora_core.host.weights.names import weights_of
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.merge.methods.fused import lacks_grams
from blocklora.blocklora_core.training.grams import collect_grams

from tests.host.tiny import Base, adaptable, make_lora, patched, same

QUICK = {"pictures": 2, "steps": 2, "size": 64}
JOB = CollectJob(**QUICK)


@pytest.fixture
def loras(folders: Path) -> Path:
    return folders / "models" / "loras"


@pytest.fixture
def plain(base: Base, loras: Path) -> list[Path]:
    """Two plain LoRA files of no slot, no token and no Grams, of kohya's kind."""
    paths = []
    for seed, name in enumerate(("ada", "bob")):
        stems = [stem for stem in adaptable(base) if "attn" in stem]
        lora = make_lora(base, f"<{name}>", seed, scheme=None, stems=stems)
        tensors = {}
        for stem, layer in lora.layers.items():
            tensors |= {f"{stem}.lora_up.weight": layer.up, f"{stem}.lora_down.weight": layer.down}
        path = loras / "web" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, path)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def node(pack: ModuleType) -> dict[str, Any]:
    return {kind.__name__: kind for kind in pack.NODES}


def run(node: dict[str, Any], base: Base, files: str, **more: Any) -> tuple[Any, Any, Any, str]:
    return node["BlockLoRALoader"].execute(base.model, base.clip, files, **{**QUICK, **more}).result


def grams(folders: Path) -> list[Path]:
    return sorted((folders / "user" / "blocklora" / "grams").glob("*.safetensors"))


LIST = "web/ada.safetensors | 0.8\n# no\nweb/bob.safetensors | 1 | on | ohwx man\nnowhere | 1 | off"


def test_two_plain_files_are_kept_apart_and_the_second_time_costs_nothing(
    node: dict[str, Any], base: Base, plain: list[Path], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clip, stack, report = run(node, base, LIST)
    assert "merged by gradient_fusion" in report and report.count("collected now") == 2
    assert "'ada' (from the file's name)" in report and "'ohwx man' (from your list)" in report
    assert [lora.strength for lora in stack] == [0.8, 1.0] and len(grams(folders)) == len(plain)
    first = patched(model), patched(clip.patcher)
    monkeypatch.setattr("blocklora.blocklora_core.host.use.apart.collect", None)  # nobody may ask it
    started = time.perf_counter()
    again, clip_again, _, report = run(node, base, LIST)
    assert time.perf_counter() - started < 10 and report.count("collected before") == 2
    assert same(first[0], patched(again)) and same(first[1], patched(clip_again.patcher))


def test_kept_apart_is_another_merge_than_the_sum_and_off_is_the_chain_of_stock_loaders(
    node: dict[str, Any], base: Base, plain: list[Path]
) -> None:
    apart = patched(run(node, base, LIST)[0])
    model, clip, _, report = run(node, base, LIST, keep_apart="off (plain sum, as chained loaders)")
    assert "merged by task_sum" in report
    chain, chain_clip = base.model, base.clip
    for path, strength in zip(plain, (0.8, 1.0), strict=True):
        tensors = safetensors.torch.load_file(path)
        chain, chain_clip = comfy.sd.load_lora_for_models(chain, chain_clip, tensors, strength, strength)
    ours, theirs = patched(model), patched(chain)
    assert len(model.patches) == len(chain.patches) > 0
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-5)
    assert not same(apart, ours)
    assert clip.patcher.patches.keys() == chain_clip.patcher.patches.keys()


def test_merge_does_the_same_with_files_loaded_one_by_one(
    node: dict[str, Any], base: Base, plain: list[Path], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is asked for are the usual pictures, which take a minute; fewer steps of smaller ones are made.
    def quickly(*args: Any, latent_shape: torch.Size, steps: int, **more: Any) -> Any:
        assert (latent_shape[-1], steps) == (12, 20)
        return collect_grams(*args, latent_shape=(latent_shape[0], 8, 8), steps=2, **more)

    monkeypatch.setattr("blocklora.blocklora_core.host.train.collect.collect_grams", quickly)
    usual = patched(run(node, base, "ada\nbob", pictures=4, steps=20, size=0)[0])
    stack = tuple(load(path) for path in plain)
    kept = grams(folders)
    model, _, report = node["BlockLoRAMerge"].execute(base.model, base.clip, stack, "auto", "error").result
    assert report.count("collected before") == 2 and grams(folders) == kept
    assert same(usual, patched(model))
    off = node["BlockLoRAMerge"].execute(
        base.model, base.clip, stack, "auto", "error", keep_apart="off (plain sum, as chained loaders)"
    )
    assert "merged by task_sum" in off.result[2]
    with pytest.raises(ValueError, match=r"rows of their own|a plain LoRA holds every row"):
        node["BlockLoRAMerge"].execute(base.model, base.clip, stack, "per_row", "error")


def test_the_words_come_from_the_file_then_the_list_then_the_file_s_name(plain: list[Path]) -> None:
    tensors = safetensors.torch.load_file(plain[0])
    tags = {"ss_tag_frequency": json.dumps({"1_x": {"ohwx": 3}})}
    safetensors.torch.save_file(tensors, plain[0].with_name("tagged.safetensors"), tags)
    safetensors.torch.save_file(
        tensors, plain[0].with_name("phrase.safetensors"), {"modelspec.trigger_phrase": "zwx man"}
    )
    words = [list(called_by(lora).values()) for lora in load_list("tagged\nphrase | <zed>\nada | a hat\nada")]
    assert words == [["ohwx"], ["zwx man", "<zed>"], ["a hat"], ["ada"]]
    prompts = CollectJob(pictures=4).prompts_of(load_list("phrase | <zed>")[0])
    assert prompts == ["a zwx man", "a <zed>"] * 2


def test_a_cancel_keeps_what_was_collected(
    base: Base, plain: list[Path], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = tuple(map(load, plain))

    def cancel(_node_id: str | None, text: str) -> None:
        if "2 of 2" in text:
            raise comfy.model_management.InterruptProcessingException

    with monkeypatch.context() as patch:
        patch.setattr("blocklora.blocklora_core.host.train.collect.tell", cancel)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            keep_apart(stack, base.model, base.clip, JOB)
    assert len(grams(folders)) == 1
    report = keep_apart(stack, base.model, base.clip, JOB).report
    assert "before" in report[0] and "now" in report[1]


def test_grams_are_kept_by_content_base_and_prompts(base: Base, plain: list[Path], folders: Path) -> None:
    store, lora = GramStore.of(base.model), load(plain[0])
    copy = plain[0].with_name("copy.safetensors")
    copy.write_bytes(plain[0].read_bytes())
    key = store.path(lora, JOB)
    assert store.path(load(copy).renamed(lora.concept.name), JOB) == key == store.path(lora.with_strength(0.3), JOB)
    assert GramStore.of(apply_merge((lora,), base.model, base.clip).model).path(lora, JOB) == key
    others = [
        store.path(load(plain[1]).renamed(lora.concept.name), JOB), store.path(lora, CollectJob(["x"], **QUICK)),
        GramStore("another", store.folder).path(lora, JOB), store.path(lora, CollectJob(**{**QUICK, "size": 72})),
    ]  # fmt: skip
    assert len({key, *others}) == 5
    assert key.parent == folders / "user" / "blocklora" / "grams"


def test_kept_grams_have_a_size_limit_and_damaged_ones_are_collected_anew(
    base: Base, plain: list[Path], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = tuple(map(load, plain))
    keep_apart(stack, base.model, base.clip, JOB)
    first, second = (GramStore.of(base.model).path(lora, JOB) for lora in stack)
    first.write_bytes(first.read_bytes()[:-9])
    report = keep_apart(stack, base.model, base.clip, JOB).report
    assert "now" in report[0] and "before" in report[1]
    monkeypatch.setattr(kept_grams, "KEPT_BYTES", first.stat().st_size)
    collected = keep_apart(stack, base.model, base.clip, JOB).stack[0].grams
    assert collected is not None
    future = time.time_ns() + 3600 * 10**9
    os.utime(second, ns=(future, future))  # the clock has gone back since
    GramStore.of(base.model).keep(first, collected)
    assert grams(folders) == [first]


@pytest.mark.usefixtures("plain")
def test_a_file_that_cannot_have_grams_is_added_and_the_others_are_kept_apart(base: Base, loras: Path) -> None:
    stem = next(stem for stem in adaptable(base) if stem.endswith("to_q"))
    m, n = adaptable(base)[stem]
    safetensors.torch.save_file({f"{stem}.diff": torch.full((m, n), 0.01)}, loras / "style.safetensors")
    stack = load_list("ada\nbob\nstyle")
    apart = keep_apart(stack, base.model, base.clip, JOB)
    applied = apply_merge(apart.stack, base.model, base.clip)
    assert applied.merged.method == "gradient_fusion and task_sum" and applied.merged.concepts == 3
    without = keep_apart(stack, base.model, None, JOB)
    assert without.stack == stack and "No CLIP" in without.report[-1]
    summed = apply_merge(stack, base.model, None)
    assert summed.merged.method == "task_sum"


@pytest.mark.parametrize("kernels", [1, None], ids=["one layer", "all layers"])
def test_matrices_written_as_convolutions_are_kept_apart_alike(
    base: Base, plain: list[Path], kernels: int | None
) -> None:
    """Some trainers write a Linear's matrices as 1x1 kernels."""
    before = keep_apart(load_list("ada\nbob"), base.model, base.clip, JOB)
    tensors = safetensors.torch.load_file(plain[1])
    stems = [name.removesuffix(".lora_down.weight") for name in tensors if name.endswith(".lora_down.weight")]
    for name in (f"{stem}.lora_{side}.weight" for stem in stems[:kernels] for side in ("up", "down")):
        tensors[name] = tensors[name][..., None, None].contiguous()
    safetensors.torch.save_file(tensors, plain[1])
    apart = keep_apart(load_list("ada\nbob"), base.model, base.clip, JOB)
    assert "collected now" in apart.report[1]
    merges = [apply_merge(one.stack, base.model, base.clip) for one in (before, apart)]
    assert [one.merged.method for one in merges] == ["gradient_fusion"] * 2
    assert same(patched(merges[0].model), patched(merges[1].model))
    alone = collect(base.model, base.clip, load_list("bob"), JOB)
    assert not lacks_grams(alone.stack[0]) and not alone.notes


def of_kind(base: Base, kind: str, seed: int, alpha: float | None = 3.0) -> dict[str, torch.Tensor]:
    """A file's tensors of another kind than LoRA: two attention layers and a bias."""
    random, tensors = torch.Generator().manual_seed(seed), dict[str, torch.Tensor]()

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random) * 0.2

    for stem in [stem for stem in adaptable(base) if stem.endswith(("attn1_to_q", "attn2_to_k"))][:2]:
        m, n = adaptable(base)[stem]
        parts = {
            "loha": {"hada_w1_a": (m, 2), "hada_w1_b": (2, n), "hada_w2_a": (m, 3), "hada_w2_b": (3, n)},
            "lokr": {"lokr_w1": (4, 4), "lokr_w2_a": (m // 4, 3), "lokr_w2_b": (3, n // 4)},
            "lokr of four": {
                "lokr_w1_a": (4, 1), "lokr_w1_b": (1, 4), "lokr_w2_a": (m // 4, 3), "lokr_w2_b": (3, n // 4),
            },
            "whole lokr": {"lokr_w1": (4, 4), "lokr_w2": (m // 4, n // 4)},
            "dora": {"lora_up.weight": (m, 2), "lora_down.weight": (2, n), "dora_scale": (m, 1)},
        }[kind]  # fmt: skip
        tensors |= {f"{stem}.{word}": noise(*shape) for word, shape in parts.items()}
        tensors |= {} if alpha is None else {f"{stem}.alpha": torch.tensor(alpha)}
    return tensors


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("alpha", [None, 3.0])
@pytest.mark.parametrize("kind", ["loha", "lokr", "lokr of four"])
def test_loha_and_lokr_are_kept_apart_as_the_products_they_are(
    base: Base, loras: Path, kind: str, alpha: float | None
) -> None:
    tensors = of_kind(base, kind, 5, alpha)
    safetensors.torch.save_file(tensors, loras / "other.safetensors")
    (other,) = load_list("other")
    weights = weights_of(base.model, base.clip)
    solved = solvable(other, weights)
    assert other.kinds and not solved.kinds and len(solved.layers) == 2
    stock, _ = comfy.sd.load_lora_for_models(base.model, base.clip, tensors, 0.7, 0.7)
    ours = patched(apply_merge((solved.with_strength(0.7),), base.model, base.clip).model)
    for name, weight in patched(stock).items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-5)
    apart = keep_apart(load_list("ada\nother"), base.model, base.clip, JOB)
    assert [line.count("collected now") for line in apart.report] == [1, 1]
    assert apply_merge(apart.stack, base.model, base.clip).merged.method == "gradient_fusion"
    assert keep_apart(load_list("other"), base.model, base.clip, JOB).stack[0].kinds, "alone it stays as it is"


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("kind", ["whole lokr", "dora"])
def test_what_is_no_product_is_added_as_chained_loaders_do_and_told(base: Base, loras: Path, kind: str) -> None:
    safetensors.torch.save_file(of_kind(base, kind, 5), loras / "other.safetensors")
    stack = load_list("ada\nbob\nother")
    apart = keep_apart(stack, base.model, base.clip, JOB)
    assert apart.stack[2].kinds == stack[2].kinds and "as chained loaders do: 2 " in apart.report[2]
    applied = apply_merge(apart.stack, base.model, base.clip)
    assert applied.merged.method == "gradient_fusion and task_sum"


@pytest.mark.usefixtures("plain")
def test_a_lora_with_a_few_differences_is_kept_apart_and_those_are_told(base: Base, loras: Path) -> None:
    tensors = safetensors.torch.load_file(loras / "web" / "ada.safetensors")
    stem = next(stem for stem in adaptable(base) if "ff_net" in stem)
    tensors[f"{stem}.diff"] = torch.full(adaptable(base)[stem], 0.01)
    safetensors.torch.save_file(tensors, loras / "mixed.safetensors")
    apart = keep_apart(load_list("bob\nmixed"), base.model, base.clip, JOB)
    assert "collected now; as chained loaders do: 1 full weight difference" in apart.report[1]
    applied = apply_merge(apart.stack, base.model, base.clip)
    assert applied.merged.method == "gradient_fusion" and applied.merged.members[1].adapters


def test_convolutions_written_as_matrices_have_no_grams(base: Base, plain: list[Path]) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in base.model.model.state_dict().items()}
    stems = {stem: shapes[name] for stem, name in weights_of(base.model, base.clip).stems.items() if name in shapes}
    m, n, *_ = next(shape for stem, shape in stems.items() if "proj_in" in stem and len(shape) == 4)
    stem = next(stem for stem in stems if "proj_in" in stem and stem.startswith("lora_unet_down"))
    for path in plain:
        tensors = safetensors.torch.load_file(path)
        tensors |= {f"{stem}.lora_up.weight": torch.ones(m, 2), f"{stem}.lora_down.weight": torch.ones(2, n)}
        safetensors.torch.save_file(tensors, path)
    apart = keep_apart(load_list("ada\nbob"), base.model, base.clip, JOB)
    assert sum("collected now" in line for line in apart.report) == 2
    assert apply_merge(apart.stack, base.model, base.clip).merged.method == "gradient_fusion"


def test_row_blocks_and_single_files_are_left_alone(base: Base, plain: list[Path]) -> None:
    blocks: tuple[BlockLoRA, ...] = (make_lora(base, "<a>", 1), make_lora(base, "<b>", 2))
    for stack in (blocks, (load(plain[0]),), (load(plain[0]), load(plain[1]).with_strength(0.0))):
        assert keep_apart(stack, base.model, base.clip, JOB).stack == stack
    told = keep_apart(blocks, base.model, base.clip, JOB).report
    assert told == ("<a>: called by this name", "<b>: called by this name")


def test_files_are_found_as_people_write_them(plain: list[Path], loras: Path) -> None:
    for name in ("web/ada.safetensors", "web\\ada.safetensors", "WEB/Ada", "ada.safetensors", "ada", "Ada"):
        assert find_lora(name) == plain[0]
    with pytest.raises(ValueError, match=r"Did you mean .*ada\.safetensors"):
        find_lora("adda.safetensors")
    (loras / "other").mkdir()
    (loras / "other" / "ada.safetensors").write_bytes(plain[0].read_bytes())
    import folder_paths

    folder_paths.filename_list_cache.clear()
    with pytest.raises(ValueError, match=r"expected one file called 'ada'.*Write it as one of these"):
        find_lora("ada")
    assert find_lora("web/ada") == plain[0]


def test_of_names_that_differ_in_case_the_exact_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths

    names = ["web/Zed.safetensors", "web/zed.safetensors", "web\\ada.safetensors", "web\\Ada.safetensors"]
    monkeypatch.setattr(folder_paths, "get_filename_list", lambda _kind: names)
    for name in names:
        assert find_name(name) == find_name(name.replace("\\", "/")) == name
    with pytest.raises(ValueError, match=r"expected one file called 'zed', got web/Zed\.safetensors, web/zed"):
        find_name("zed")


@pytest.mark.usefixtures("plain")
def test_missing_and_damaged_files_are_named_by_their_lines(node: dict[str, Any], base: Base, loras: Path) -> None:
    (loras / "bad.safetensors").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(ValueError, match=r"(?s)Line 2: expected a file of the loras folder, got 'gone'.*Line 3: .*bad"):
        run(node, base, "ada\ngone\nbad.safetensors\n")
    with pytest.raises(ValueError, match="Line 1: expected a strength"):
        run(node, base, "ada | 99")


@pytest.mark.usefixtures("folders")
def test_an_empty_list_leaves_everything_as_it_is(node: dict[str, Any], base: Base) -> None:
    model, clip, stack, report = run(node, base, "# nothing\n")
    assert (model, clip, stack) == (base.model, base.clip, ()) and "No file is on" in report


def test_a_file_s_own_token_can_be_renamed_in_the_list(node: dict[str, Any], base: Base, loras: Path) -> None:
    save(loras / "own.safetensors", make_lora(base, "<own>", 1))
    _, clip, (lora,), _ = run(node, base, "own | 1 | on | <zed>")
    assert lora.concept.name == "<zed>"
    assert any(torch.is_tensor(token) for token, *_ in clip.tokenize("a <zed>")["l"][0])


def test_words_of_a_file_with_a_name_of_its_own_are_told(node: dict[str, Any], base: Base, loras: Path) -> None:
    save(loras / "own.safetensors", make_lora(base, "<own>", 1))
    note = "Prompts call it <own>: words are for plain LoRAs."
    output = node["BlockLoRALoader"].execute(base.model, base.clip, "own | 1 | on | ohwx man", **QUICK)
    assert note in output.result[3] and note in output.ui["blocklora_warnings"][0]
    save(loras / "saved.safetensors", output.result[2][0])
    assert "words are for" not in run(node, base, "saved")[3], "they were the list's, not the file's"
    for words in ("", "<own>", "<zed>"):
        assert "words are for" not in run(node, base, f"own | 1 | on | {words}")[3]


def test_a_changed_file_loads_again(node: dict[str, Any], plain: list[Path]) -> None:
    loader = node["BlockLoRALoader"]
    before = loader.fingerprint_inputs("ada", "on", size=64)
    assert before == loader.fingerprint_inputs("ada", "on", size=64) != loader.fingerprint_inputs("ada", "on", size=72)
    os.utime(plain[0], ns=(1, 1))
    assert loader.fingerprint_inputs("ada", "on", size=64) != before


def in_graph(monkeypatch: pytest.MonkeyPatch, kind: Any, *nodes: tuple[str, dict[str, Any]]) -> None:
    graph = {str(at): {"class_type": name, "inputs": inputs} for at, (name, inputs) in enumerate(nodes)}
    monkeypatch.setattr(kind, "hidden", type("Hidden", (), {"unique_id": None, "prompt": graph}))


def test_a_prompt_that_names_nobody_is_told_in_the_report(
    node: dict[str, Any], base: Base, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(loras / "own.safetensors", make_lora(base, "<own>", 1))
    prompts = [("CLIPTextEncode", {"text": "<OWN> and <eve>, <lora:x:1>", "clip": ["4", 1]}), ("KSampler", {"seed": 1})]
    others = [("BlockLoRALoad", {"rename": "<bob>"}), ("CLIPTextEncode", {"text": "<bob>"})]
    in_graph(monkeypatch, node["BlockLoRALoader"], *prompts, *others)
    assert "Prompts name <eve>, which no merged concept is called" in run(node, base, "own")[3]
    in_graph(monkeypatch, node["BlockLoRAMerge"], *prompts, *others)
    stack = load_list("own")
    report = node["BlockLoRAMerge"].execute(base.model, base.clip, stack, "auto", "error").result[2]
    assert "Prompts name <eve>, which" in report
    in_graph(monkeypatch, node["BlockLoRALoader"], ("CLIPTextEncode", {"text": "<own>"}))
    assert "Prompts name" not in run(node, base, "own")[3]


def test_a_region_of_a_concept_that_is_not_merged_is_told(node: dict[str, Any], base: Base) -> None:
    model = apply_merge((make_lora(base, "<own>", 1),), base.model, base.clip).model
    cond = [[torch.zeros(1, 77, 768), {}]]
    shown = []
    for name in ("<OWN>", "<eve>", ""):
        (regions,) = node["BlockLoRARegion"].execute(cond, 0.0, 0.0, 0.5, 1.0, name, 1.0, 0.0, 0).result
        output = node["BlockLoRARegionalSampling"].execute(model, regions, "mean", 0.0, 1.0)
        assert output.ui["text"] == (output.result[2],)
        shown.append(output.ui["blocklora_warnings"])
        assert all(text in output.result[2] for text in shown[-1])
    assert shown == [(), ("Regions name <eve>, which is not merged into this model.",), ()]
