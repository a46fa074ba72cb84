"""LoHa, LoKr, DoRA, OFT, GLoRA and whole differences in a stack: the stock loader is the yardstick."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.sd
import comfy.utils
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.concept.keys import is_text
from blocklora.blocklora_core.files.io import FileError, load, save
from blocklora.blocklora_core.host.weights.adapters import ChainAdapter
from blocklora.blocklora_core.host.weights.names import model_stems, model_weights
from blocklora.blocklora_core.host.weights.patching import NothingFitsError, apply_merge
from blocklora.blocklora_core.merge import Options

from tests.foreign_files import write
from tests.host.any_model import build
from tests.host.tiny import Base, adaptable, make_lora, patched, same

Tensors = dict[str, torch.Tensor]
Words = Callable[[int, int, torch.Generator], Tensors]


def noise(random: torch.Generator, *shape: int, by: float = 0.2) -> torch.Tensor:
    return torch.randn(shape, generator=random) * by


def lora(m: int, n: int, random: torch.Generator) -> Tensors:
    return {
        "lora_up.weight": noise(random, m, 3), "lora_down.weight": noise(random, 3, n), "alpha": torch.tensor(2.0)
    }  # fmt: skip


def loha(m: int, n: int, random: torch.Generator) -> Tensors:
    shapes = {"a": (m, 3), "b": (3, n)}
    words = {f"hada_w{i}_{side}": noise(random, *shape) for i in (1, 2) for side, shape in shapes.items()}
    return words | {"alpha": torch.tensor(2.0)}


def lokr(m: int, n: int, random: torch.Generator) -> Tensors:
    return {"lokr_w1": noise(random, 4, 4), "lokr_w2": noise(random, m // 4, n // 4), "alpha": torch.tensor(1.0)}


def lokr_low_rank(m: int, n: int, random: torch.Generator) -> Tensors:
    second = {"lokr_w2_a": noise(random, m // 4, 2), "lokr_w2_b": noise(random, 2, n // 4)}
    return {"lokr_w1": noise(random, 4, 4), "alpha": torch.tensor(1.0), **second}


def dora(m: int, n: int, random: torch.Generator) -> Tensors:
    return lora(m, n, random) | {"dora_scale": 1 + noise(random, 1, n)}


def dora_of_rows(m: int, n: int, random: torch.Generator) -> Tensors:
    return lora(m, n, random) | {"dora_scale": 1 + noise(random, m, 1)}


def dora_of_loha(m: int, n: int, random: torch.Generator) -> Tensors:
    return loha(m, n, random) | {"dora_scale": 1 + noise(random, 1, n)}


def oft(m: int, _: int, random: torch.Generator) -> Tensors:
    return {"oft_blocks": noise(random, m // 8, 8, 8, by=0.02), "alpha": torch.tensor(0.3)}


def glora(m: int, n: int, random: torch.Generator) -> Tensors:
    shapes = {"a1": (n, 3), "a2": (3, n), "b1": (m, 3), "b2": (3, n)}
    return {f"{word}.weight": noise(random, *shape) for word, shape in shapes.items()} | {"alpha": torch.tensor(3.0)}


def difference(m: int, n: int, random: torch.Generator) -> Tensors:
    return {"diff": noise(random, m, n)}


KINDS: list[tuple[Words, str]] = [
    (loha, "LoHa"), (lokr, "LoKr"), (lokr_low_rank, "LoKr"), (dora, "DoRA"), (dora_of_rows, "DoRA"),
    (dora_of_loha, "DoRA of LoHa"), (oft, "OFT"), (glora, "GLoRA"), (difference, "full weight difference"),
]  # fmt: skip
FIXED = [(words, kind) for words, kind in KINDS if words in (loha, lokr, lokr_low_rank, difference)]
UNFIXED = [(words, kind) for words, kind in KINDS if (words, kind) not in FIXED]
NAMED = {"ids": lambda one: one if isinstance(one, str) else one.__name__}


def file_tensors(base: Base, words: Words, seed: int = 0, stems: list[str] | None = None) -> Tensors:
    """A file of one kind on the attention's queries and one layer of the text encoder."""
    random = torch.Generator().manual_seed(seed)
    chosen = stems or [stem for stem in adaptable(base) if stem.endswith(("to_q", "_0_self_attn_q_proj"))]
    shapes = adaptable(base)
    return {
        f"{stem}.{word}": value
        for stem in chosen
        for word, value in words(shapes[stem][0], shapes[stem][1], random).items()
    }


def stock(base: Base, *files: tuple[Tensors, float, float]) -> tuple[Any, Any]:
    model, clip = base.model, base.clip
    for tensors, strength, strength_clip in files:
        model, clip = comfy.sd.load_lora_for_models(model, clip, tensors, strength, strength_clip)
    return model, clip.patcher


def both(patchers: tuple[Any, Any]) -> list[Tensors]:
    return [patched(patcher, set(patcher.patches)) for patcher in patchers]


MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
STEM = f"lora_unet_{MODULE.replace('.', '_')}"
SPELLINGS = {"lora_up": "lora_B", "lora_down": "lora_A", "dora_scale": "lora_magnitude_vector"}


def spelt(tensors: Tensors, start: str) -> Tensors:
    """As PEFT and diffusers call them."""
    found = {}
    for name, value in tensors.items():
        word = name.partition(".")[2]
        new = next((word.replace(ours, theirs) for ours, theirs in SPELLINGS.items() if word.startswith(ours)), word)
        found[f"{start}{MODULE}.{new.removesuffix('.weight') if 'magnitude' in new else new}"] = value
    return found


def check_as_kohya(base: Base, path: Path, tensors: Tensors, kind: str) -> None:
    """Our merge of the file at `path` is the stock loader's of `tensors`, which have kohya's names."""
    concept = load(path)
    assert [adapter.kind for adapter in concept.adapters.values()] == [kind] and not concept.layers
    applied = apply_merge((concept.with_strength(0.7),), base.model, base.clip, "auto")
    ours = patched(applied.model, set(applied.model.patches))
    theirs = patched(model := stock(base, (tensors, 0.7, 0.7))[0], set(model.patches))
    assert applied.unused == {} and ours.keys() == theirs.keys() and len(ours) == 1
    for name, weight in theirs.items():
        assert not torch.equal(weight, patched(base.model)[name])
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("words", "kind"), [one for one in KINDS if one[0] in (loha, lokr, lokr_low_rank)], **NAMED)
@pytest.mark.parametrize("start", ["unet.", "unet.base_model.model.", "base_model.model.", ""])
def test_other_kinds_under_diffusers_and_peft_s_names(
    base: Base, tmp_path: Path, words: Words, kind: str, start: str
) -> None:
    tensors = file_tensors(base, words, stems=[STEM])
    check_as_kohya(base, write(tmp_path / "a.safetensors", spelt(tensors, start)), tensors, kind)


@pytest.mark.parametrize("start", ["unet.", "base_model.model."])
@pytest.mark.parametrize("flat", [True, False])
def test_a_dora_under_diffusers_and_peft_s_names(base: Base, tmp_path: Path, start: str, flat: bool) -> None:
    tensors = file_tensors(base, dora_of_rows, stems=[STEM])
    renamed = spelt(tensors, start)
    scale = f"{start}{MODULE}.lora_magnitude_vector"
    renamed[scale] = renamed[scale].flatten() if flat else renamed[scale]
    check_as_kohya(base, write(tmp_path / "a.safetensors", renamed), tensors, "DoRA")


CONFIGURED: list[tuple[Words, str, dict[str, Any], int]] = [
    (dora_of_rows, "DoRA", {"use_dora": True, "lora_alpha": 6, "r": 3}, 3),
    (loha, "LoHa", {"peft_type": "LOHA", "alpha": 6, "r": 3}, 3),
    (lokr_low_rank, "LoKr", {"peft_type": "LOKR", "alpha": 6, "r": 2}, 2),
    (lokr, "LoKr", {"peft_type": "LOKR", "alpha": 6, "r": 4}, 4),
]


@pytest.mark.parametrize(("words", "kind", "config", "rank"), CONFIGURED)
def test_peft_s_configuration_scales_other_kinds(
    base: Base, tmp_path: Path, words: Words, kind: str, config: dict[str, Any], rank: int
) -> None:
    tensors = file_tensors(base, words, stems=[STEM])
    alone = {name: value for name, value in spelt(tensors, "base_model.model.").items() if not name.endswith(".alpha")}
    path = write(tmp_path / "adapter_model.safetensors", alone)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    tensors[f"{STEM}.alpha"] = torch.tensor(6.0)
    if words is lokr:  # Its alpha counts for nothing here, as no part has a rank.
        tensors[f"{STEM}.lokr_w1"] *= 6.0 / rank
    check_as_kohya(base, path, tensors, kind)


@pytest.mark.parametrize(("words", "kind"), KINDS, **NAMED)
@pytest.mark.parametrize("strength", [1.0, -0.7])
def test_each_kind_changes_the_weights_as_the_stock_loader_does_bit_for_bit(
    base: Base, tmp_path: Path, words: Words, kind: str, strength: float
) -> None:
    tensors = file_tensors(base, words)
    concept = load(write(tmp_path / "style.safetensors", tensors))
    assert {adapter.kind for adapter in concept.adapters.values()} == {kind} and not concept.layers
    applied = apply_merge((concept.with_strength(strength, 0.5),), base.model, base.clip, "auto")
    ours, theirs = both((applied.model, applied.clip.patcher)), both(stock(base, (tensors, strength, 0.5)))
    plain = patched(base.model)
    assert ours[0] and ours[1] and applied.model_layers == len(ours[0])
    for mine, other in zip(ours, theirs, strict=True):
        assert same(mine, other)
    assert all(not torch.equal(ours[0][name], plain[name]) for name in ours[0])


def chained(base: Base, tmp_path: Path, stack: list[BlockLoRA]) -> tuple[Any, Any]:
    """The stock loaders, one after the other, on the files of `stack`."""
    files = []
    for number, concept in enumerate(stack):
        path = Path(concept.source)
        if not concept.adapters:
            path = save(tmp_path / f"{number}.safetensors", concept, dtype=torch.float32)
        tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
        files.append((tensors, concept.strength, concept.effective_strength_clip))
    return stock(base, *files)


def test_a_mixed_stack_is_the_chain_of_stock_loaders(base: Base, tmp_path: Path) -> None:
    others = [
        load(write(tmp_path / f"{words.__name__}.safetensors", file_tensors(base, words, seed)))
        for seed, words in enumerate((loha, dora, lokr, difference))
    ]
    stack = [make_lora(base, "<a>", 1), make_lora(base, "<b>", 2), make_lora(base, "<p>", 3, None), *others]
    stack.append(make_lora(base, "<c>", 4))  # After the DoRA, which must not see it.
    stack = [concept.with_strength(0.3 + 0.1 * i, 0.9) for i, concept in enumerate(stack)]
    applied = apply_merge(tuple(stack), base.model, base.clip, "task_sum")
    for mine, other in zip(
        both((applied.model, applied.clip.patcher)), both(chained(base, tmp_path, stack)), strict=True
    ):
        assert mine.keys() == other.keys()
        for name in mine:
            # The text encoder's weights are float16: sums in another order may round to its next number.
            rtol = max(1e-5, torch.finfo(mine[name].dtype).eps)
            torch.testing.assert_close(mine[name], other[name], rtol=rtol, atol=1e-5)
    assert all(len(steps) == 1 for steps in applied.model.patches.values())


def test_per_row_takes_all_kinds_on_weights_of_their_own(base: Base, tmp_path: Path) -> None:
    queries, values, outs = (
        [stem for stem in adaptable(base) if stem.endswith(end)] for end in ("to_q", "to_v", "to_out_0")
    )
    stack = [
        make_lora(base, "<a>", 1, stems=outs), make_lora(base, "<b>", 2, stems=outs),
        load(write(tmp_path / "loha.safetensors", file_tensors(base, loha, 1, queries))),
        load(write(tmp_path / "dora.safetensors", file_tensors(base, dora, 2, values))),
    ]  # fmt: skip
    applied = apply_merge(tuple(stack), base.model, base.clip, "auto")
    assert applied.merged.method == "per_row"
    (mine, _), (other, _) = both((applied.model, applied.clip.patcher)), both(chained(base, tmp_path, stack))
    assert mine.keys() == other.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], other[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("words", [words for words, _ in FIXED], **NAMED)
def test_kinds_that_do_not_depend_on_the_weight_become_layers_exactly(base: Base, tmp_path: Path, words: Words) -> None:
    tensors = file_tensors(base, words)
    concept = load(write(tmp_path / "style.safetensors", tensors))
    applied = apply_merge((concept.with_strength(0.5),), base.model, base.clip, "ties", options=Options(density=1.0))
    zero = {name: torch.zeros(shape) for name, shape in model_weights(base.model).shapes.items()}
    loaded = comfy.lora.load_lora(tensors, dict(model_stems(base.model)), log_missing=False)
    (member,) = [member for member in applied.merged.members if member.layers]
    for name, value in loaded.items():
        expected = comfy.lora.calculate_weight([(0.5, value, 1.0, None, None)], zero[name], name)
        torch.testing.assert_close(member.layers[name].dense(), expected, rtol=1e-6, atol=1e-7)
    assert {name for name in member.layers if not is_text(name)} == set(loaded)


@pytest.mark.parametrize("method", ["ties", "knots"])
@pytest.mark.parametrize(("words", "kind"), UNFIXED, **NAMED)
def test_methods_that_compare_entries_refuse_what_depends_on_the_weight(
    base: Base, tmp_path: Path, words: Words, kind: str, method: str
) -> None:
    concept = load(write(tmp_path / "style.safetensors", file_tensors(base, words)))
    with pytest.raises(ValueError, match=rf"{method} compares the entries.*style.*by a {kind},.*task_sum"):
        apply_merge((make_lora(base, "<a>", 1), concept), base.model, base.clip, method)


@pytest.mark.parametrize("overlap", ["share", "priority"])
def test_shared_rows_are_dealt_out_to_a_loha_and_not_to_a_dora(base: Base, tmp_path: Path, overlap: Any) -> None:
    block = make_lora(base, "<a>", 1)
    style, whole = (
        load(write(tmp_path / f"{words.__name__}.safetensors", file_tensors(base, words))) for words in (loha, dora)
    )
    applied = apply_merge((block, style), base.model, base.clip, "per_row", overlap)
    member = applied.merged.members[1]
    assert applied.merged.shared_rows > 0 and member.layers and not member.adapters
    with pytest.raises(ValueError, match=r"per_row shares out rows.*dora.*by a DoRA"):
        apply_merge((block, whole), base.model, base.clip, "per_row", overlap)
    with pytest.raises(ValueError, match="rows of their own"):
        apply_merge((block, style), base.model, base.clip, "per_row", "error")


@pytest.mark.parametrize("method", ["fused", "gradient_fusion"])
def test_fusion_refuses_what_has_no_grams(base: Base, tmp_path: Path, method: str) -> None:
    concept = load(write(tmp_path / "style.safetensors", file_tensors(base, loha)))
    with pytest.raises(ValueError, match=f"{method}: expected every file to carry its Grams.*style"):
        apply_merge((make_lora(base, "<a>", 1), concept), base.model, base.clip, method)


def test_pieces_of_a_fused_weight_take_adapters_too(tmp_path: Path) -> None:
    model = build("flux")
    random, tensors = torch.Generator().manual_seed(3), {}
    for stem, piece in model_weights(model).pieces.items():
        if stem.startswith("transformer."):
            width = model_weights(model).shapes[piece.weight][1]
            tensors |= {f"{stem}.{word}": value for word, value in loha(len(piece.rows), width, random).items()}
    assert tensors
    applied = apply_merge((load(write(tmp_path / "style.safetensors", tensors)),), model, None, "per_row")
    theirs = model.clone()
    theirs.add_patches(comfy.lora.load_lora(tensors, comfy.lora.model_lora_keys_unet(model.model, {})))
    assert same(patched(applied.model), patched(theirs)) and not same(patched(applied.model), patched(model))


def test_biases_and_norms_are_changed_as_the_stock_loader_does(base: Base, tmp_path: Path) -> None:
    stem = next(stem for stem in adaptable(base) if stem.endswith("to_out_0"))
    m, n = adaptable(base)[stem]
    tensors = {f"{stem}.diff": torch.full((m, n), 0.1), f"{stem}.diff_b": torch.full((m,), 0.3)}
    concept = load(write(tmp_path / "style.safetensors", tensors))
    applied = apply_merge((concept,), base.model, base.clip, "per_row")
    assert same(patched(applied.model), patched(stock(base, (tensors, 1.0, 1.0))[0]))
    with pytest.raises(ValueError, match=r"ties compares the entries.*one of a vector"):
        apply_merge((concept,), base.model, base.clip, "ties")


def broken(words: Tensors, *without: str, **others: torch.Tensor) -> Tensors:
    return {word: value for word, value in words.items() if word not in without} | others


def test_what_comfyui_would_leave_out_is_an_error(base: Base, tmp_path: Path) -> None:
    stem = next(stem for stem in adaptable(base) if stem.endswith("to_q"))
    m, n = adaptable(base)[stem]
    random = torch.Generator().manual_seed(0)
    cases: dict[str, tuple[Tensors, type[Exception], str]] = {
        "shape": (loha(m, n + 1, random), NothingFitsError, "expected a change of shape"),
        "kron": (lokr(m, n + 4, random), NothingFitsError, "expected a change of shape"),
        "difference": ({"diff": torch.ones(m, n + 1)}, NothingFitsError, "expected a difference of shape"),
        "scale": (broken(dora(m, n, random), dora_scale=torch.ones(1, n + 1)), NothingFitsError, "of shape"),
        "blocks": ({"oft_blocks": torch.ones(3, 3, 3)}, NothingFitsError, "of shape"),
        "unread": (broken(lokr(m, n, random), lokr_t1=torch.ones(m)), ValueError, "does not know .*lokr_t1"),
        "tucker": (broken(loha(m, n, random), hada_t1=torch.ones(3, 3, 1, 1)), ValueError, "cannot read this LoHa"),
    }
    for name, (words, error, message) in cases.items():
        path = write(tmp_path / f"{name}.safetensors", {f"{stem}.{word}": value for word, value in words.items()})
        with pytest.raises(error, match=f"{name}.*{message}"):
            apply_merge((load(path),), base.model, base.clip, "per_row")
    assert base.model.patches == {}


def test_layers_that_the_model_has_not_are_told_and_none_at_all_is_an_error(base: Base, tmp_path: Path) -> None:
    tensors = file_tensors(base, loha)
    strange = {f"lora_unet_nowhere.{word}": value for word, value in loha(4, 4, torch.Generator()).items()}
    concept = load(write(tmp_path / "style.safetensors", tensors | strange))
    applied = apply_merge((concept,), base.model, base.clip, "per_row")
    assert list(applied.unused.values()) == [["lora_unet_nowhere"]]
    with pytest.raises(NothingFitsError, match="none of its 1 layers"):
        apply_merge((load(write(tmp_path / "no.safetensors", strange)),), base.model, base.clip, "per_row")


def test_save_refuses_other_kinds(base: Base, tmp_path: Path) -> None:
    concept = load(write(tmp_path / "style.safetensors", file_tensors(base, loha)))
    with pytest.raises(FileError, match=r"expected LoRA layers alone, got LoHa too.*Keep the original file"):
        save(tmp_path / "again.safetensors", concept)
    assert not (tmp_path / "again.safetensors").exists()


def test_a_chain_can_be_made_again_from_its_weights(base: Base, tmp_path: Path) -> None:
    concept = load(write(tmp_path / "style.safetensors", file_tensors(base, loha)))
    applied = apply_merge((make_lora(base, "<a>", 1), concept), base.model, base.clip, "task_sum")
    name, chain = next((k, s[0][1]) for k, s in applied.model.patches.items() if isinstance(s[0][1], ChainAdapter))
    weight = torch.ones(model_weights(base.model).shapes[name])
    again = ChainAdapter(chain.loaded_keys, chain.weights)
    assert torch.equal(
        again.calculate_weight(weight.clone(), name, 0.5, 1.0, None, None),
        chain.calculate_weight(weight.clone(), name, 0.5, 1.0, None, None),
    )
    full = chain.calculate_weight(weight.clone(), name, 1.0, 1.0, None, None) - weight
    half = chain.calculate_weight(weight.clone(), name, 0.5, 1.0, None, None) - weight
    torch.testing.assert_close(half * 2, full, rtol=1e-4, atol=1e-4)


def test_the_nodes_tell_the_kinds(base: Base, pack: Any, folders: Path) -> None:
    kinds = {node.__name__: node for node in pack.NODES}
    write(folders / "models" / "loras" / "style.safetensors", file_tensors(base, loha))
    output = kinds["BlockLoRALoad"].execute("style.safetensors", 0.5, "", 0.5)
    (concept,) = output.result[0]
    assert (concept.strength, concept.strength_clip) == (0.5, 0.25)
    assert "of LoHa" in "\n".join(output.ui["text"])
    report = kinds["BlockLoRAMerge"].execute(base.model, base.clip, (concept,), "auto", "error").result[2]
    assert "weights by LoHa" in report
