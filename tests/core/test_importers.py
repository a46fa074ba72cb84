"""Other tools' files, written here from known layers: what is read changes each weight as the known layers do."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blocklora_core.concept.concept import BlockLoRA
from blocklora_core.concept.rows import all_rows
from blocklora_core.files.formats import FORMATS, files_of
from blocklora_core.files.io import FileError, load, save
from blocklora_core.files.shown import NOTE, trigger_words
from tests.foreign_files import (
    WRITERS,
    Known,
    Scale,
    Writer,
    ed_lora,
    ed_lora_tree,
    layerwise,
    named,
    peft,
    peft_bare,
    peft_config,
    pickled,
    processor,
    write,
)

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
# Side, diffusers' module, kohya's stem, shape of the weight.
MODULES: list[tuple[str, str, str, tuple[int, ...]]] = [
    ("unet", f"{ATTENTION}.to_q", f"lora_unet_{ATTENTION.replace('.', '_')}_to_q", (8, 6)),
    ("unet", f"{ATTENTION}.to_out.0", f"lora_unet_{ATTENTION.replace('.', '_')}_to_out_0", (6, 8)),
    (
        "text_encoder", "text_model.encoder.layers.0.self_attn.q_proj",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj", (5, 5),
    ),
    ("unet", "down_blocks.0.resnets.0.conv1", "lora_unet_down_blocks_0_resnets_0_conv1", (4, 3, 3, 3)),
    ("unet", "down_blocks.0.attentions.0.proj_in", "lora_unet_down_blocks_0_attentions_0_proj_in", (4, 4, 1, 1)),
]  # fmt: skip


def known_layers(ranks: list[int], alphas: list[float]) -> list[Known]:
    random = torch.Generator().manual_seed(sum(ranks))
    layers = []
    for (side, module, stem, (m, *inner)), rank, alpha in zip(MODULES, ranks, alphas, strict=True):
        up = torch.randn(m, rank, *[1] * (len(inner) - 1), generator=random)
        down = torch.randn(rank, *inner, generator=random)
        layers.append(Known(side, module, stem, up, down, alpha))
    return layers


CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
CONVOLVE = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}

LAYERS = known_layers([2, 3, 1, 2, 1], [1.0, 6.0, 0.5, 3.0, 1.0])


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def check(lora: BlockLoRA, layers: list[Known], scale: Scale) -> None:
    assert lora.concept.bare == "hero"
    assert (lora.scheme, lora.slot, lora.grams) == (None, None, None)
    assert set(lora.layers) == {known.stem for known in layers}
    for known in layers:
        layer = lora.layers[known.stem]
        assert layer.rows == all_rows(known.up.shape[0])
        torch.testing.assert_close(layer.dense(), known.change(scale(known)))


RANKS = st.lists(st.integers(1, 5), min_size=5, max_size=5)
ALPHAS = st.lists(st.floats(-32.0, 32.0, width=32), min_size=5, max_size=5)


@pytest.mark.parametrize(("writer", "scale"), WRITERS, ids=lambda one: one.__name__)
@settings(deadline=None)
@given(ranks=RANKS, alphas=ALPHAS)
def test_what_is_read_changes_the_weights_as_what_was_written(
    writer: Writer, scale: Scale, ranks: list[int], alphas: list[float]
) -> None:
    layers = known_layers(ranks, alphas)
    with scratch() as folder:
        check(load(writer(folder, layers)), layers, scale)


@pytest.mark.parametrize(("writer", "scale"), WRITERS, ids=lambda one: one.__name__)
def test_an_import_saved_by_us_is_the_same_concept(tmp_path: Path, writer: Writer, scale: Scale) -> None:
    lora = load(writer(tmp_path, LAYERS))
    back = load(save(tmp_path / "ours.safetensors", lora, dtype=torch.float32))
    check(back, LAYERS, scale)
    assert (back.concept, back.metadata, trigger_words(back)) == (lora.concept, lora.metadata, trigger_words(lora))


@pytest.mark.parametrize("kernel", [(3,), (3, 3), (1, 3), (2, 3, 3)])
def test_a_locon_of_three_convolutions_is_one_plain_layer(tmp_path: Path, kernel: tuple[int, ...]) -> None:
    random, ones = torch.Generator().manual_seed(5), (1,) * len(kernel)
    shapes = {"up": (6, 2, *ones), "mid": (2, 2, *kernel), "down": (2, 4, *ones)}
    parts = {part: torch.randn(shape, generator=random) for part, shape in shapes.items()}
    tensors = {f"{CONV}.lora_{part}.weight": tensor for part, tensor in parts.items()}
    path = write(tmp_path / "a.safetensors", {**tensors, f"{CONV}.alpha": torch.tensor(3.0)})
    layer = load(path).layers[CONV]
    x, convolve = torch.randn(1, 4, *[5] * len(kernel), generator=random), CONVOLVE[len(kernel)]
    steps = convolve(convolve(convolve(x, parts["down"]), parts["mid"]), parts["up"])
    torch.testing.assert_close(convolve(x, layer.dense()), 1.5 * steps, rtol=1e-4, atol=1e-4)
    again = load(save(tmp_path / "b.safetensors", load(path), dtype=torch.float32)).layers[CONV]
    torch.testing.assert_close(again.dense(), layer.dense())


BAD_KERNELS = [
    ({"mid": (2, 3, 3, 3)}, r"down \(r, n, 1, 1\) and mid \(r, r, kh, kw\), got .* \(2, 3, 3, 3\)"),
    ({"mid": (2, 2, 3)}, "and mid"),
    ({"down": (2, 4, 3, 3)}, "and mid"),
    ({"down": (2, 4), "mid": (2, 2)}, "and mid"),
    ({"up": (6, 2, 3, 3)}, r"Expected up \(rows, r"),
    ({"up": (6, 3, 1, 1)}, "equal ranks"),
]


@pytest.mark.parametrize(("changed", "message"), BAD_KERNELS)
def test_convolutions_that_do_not_chain_are_refused(
    tmp_path: Path, changed: dict[str, tuple[int, ...]], message: str
) -> None:
    shapes = {"up": (6, 2, 1, 1), "mid": (2, 2, 3, 3), "down": (2, 4, 1, 1), **changed}
    tensors = {f"{CONV}.lora_{part}.weight": torch.ones(shape) for part, shape in shapes.items()}
    with pytest.raises(FileError, match=message):
        load(write(tmp_path / "a.safetensors", tensors))


def test_every_format_has_a_writer_here() -> None:
    assert [form.name for form in FORMATS] == ["Mix-of-Show", "PEFT", "diffusers", "kohya"]


def test_an_ed_lora_s_tokens_become_one_named_after_the_file(tmp_path: Path) -> None:
    lora = load(ed_lora(tmp_path, LAYERS))
    assert (lora.concept.name, lora.base, trigger_words(lora)) == ("<hero>", "sd15", "<hero>")
    assert list(lora.embeddings) == ["clip_l"]
    vectors = lora.embeddings["clip_l"]
    assert vectors.shape == (16, 2, 768)
    assert torch.equal(vectors[:, 0], layerwise(LAYERS, 1)) and torch.equal(vectors[:, 1], layerwise(LAYERS, 2))
    assert lora.metadata[NOTE] == "Its name stands for <x1> <x2>."
    again = load(save(tmp_path / "ours.safetensors", lora, dtype=torch.float32))
    assert torch.equal(again.embeddings["clip_l"], vectors)


def test_a_token_of_one_vector_beside_layer_wise_ones_is_the_same_in_every_layer(tmp_path: Path) -> None:
    tree = ed_lora_tree(LAYERS, lambda a: a.module, ".lora_down.weight", ".lora_up.weight")
    tokens = {"<x1>": torch.ones(3, 4), "<x2>": torch.arange(4.0)}
    vectors = load(pickled(tmp_path, {**tree, "new_concept_embedding": tokens})).embeddings["clip_l"]
    assert torch.equal(vectors, torch.stack([torch.ones(3, 4), torch.arange(4.0).expand(3, 4)], 1))


@pytest.mark.parametrize("shape", [(768,), (1, 768)])
def test_tokens_of_one_vector_stay_as_they_are(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tree = ed_lora_tree(LAYERS, lambda a: a.module, ".lora_down.weight", ".lora_up.weight")
    token = torch.nn.Parameter(torch.randn(shape).half())
    lora = load(pickled(tmp_path, {**tree, "new_concept_embedding": {"<x1>": token}}))
    assert torch.equal(lora.embeddings["clip_l"], token.detach().reshape(1, 768))
    assert not lora.embeddings["clip_l"].requires_grad
    assert lora.metadata[NOTE] == "Its name stands for <x1>."


def test_a_peft_file_alone_says_that_its_scale_is_unknown(tmp_path: Path) -> None:
    lora = load(peft_bare(tmp_path, LAYERS))
    assert "No adapter_config.json lay beside the file" in lora.metadata[NOTE]
    assert NOTE not in load(peft(tmp_path, LAYERS)).metadata


def test_peft_s_configuration_counts_as_read(tmp_path: Path) -> None:
    alone, folder = peft_bare(tmp_path, LAYERS), peft(tmp_path, LAYERS)
    assert files_of(alone) == (alone,)
    assert files_of(folder) == (folder, folder.parent / "adapter_config.json")


TAGS = {"10_ohwx man": {"ohwx man": 20, "smile": 11, "hat": 2}, "5_more": {"ohwx man": 2, " ": 9, "broken": "x"}}

WORDS: list[tuple[dict[str, str], str]] = [
    ({"modelspec.trigger_phrase": " ohwx man ", "ss_output_name": "x"}, "ohwx man"),
    ({"ss_tag_frequency": json.dumps(TAGS), "ss_output_name": "x"}, "ohwx man, smile"),
    ({"ss_tag_frequency": json.dumps({"1_a": {"ohwx man": 1}})}, "ohwx man"),
    ({"ss_tag_frequency": json.dumps({"1_a": {"A man by a lake.": 1, "Two men walk.": 1}})}, ""),
    ({"ss_tag_frequency": "{}", "ss_output_name": "my_face"}, ""),
    ({"ss_tag_frequency": "damaged"}, ""),
    ({"ss_tag_frequency": "[1]"}, ""),
    ({"ss_tag_frequency": '{"a": 1}'}, ""),
    ({}, ""),
]


@pytest.mark.parametrize(("entries", "words"), WORDS)
def test_trigger_words_are_what_the_trainer_recorded(tmp_path: Path, entries: dict[str, str], words: str) -> None:
    tensors = named(LAYERS, lambda a: a.stem, ".lora_down.weight", ".lora_up.weight")
    lora = load(write(tmp_path / "a.safetensors", tensors, entries))
    assert trigger_words(lora) == words
    assert trigger_words(load(save(tmp_path / "b.safetensors", lora))) == words


def config_edit(**changes: object) -> str:
    return peft_config(LAYERS, **changes)


CONFIGS = [
    ("{", "Expected JSON in the PEFT configuration"),
    ("[]", "Expected a JSON object in the PEFT configuration, got list"),
    (config_edit(peft_type="VERA"), "got peft_type 'VERA'.*export it with kohya's"),
    (config_edit(fan_in_fan_out=True), "another kind: transposed LoRA"),
    (config_edit(init_lora_weights="pissa_niter_4"), "unchanged base model, got one that pissa_niter_4"),
    (config_edit(lora_alpha=None), "Expected a number for lora_alpha .* got None"),
    (config_edit(lora_alpha=True), "Expected a number for lora_alpha .* got True"),
    (config_edit(alpha_pattern={"to_q": "x"}), "Expected a number for alpha_pattern to_q"),
    (config_edit(alpha_pattern=[1]), "Expected an object for alpha_pattern"),
    (config_edit(alpha_pattern={"(": 1}), r"Expected a regular expression in alpha_pattern, got '\('"),
]


@pytest.mark.parametrize(("config", "message"), CONFIGS)
def test_a_peft_configuration_that_is_not_sound_is_refused(tmp_path: Path, config: str, message: str) -> None:
    path = peft(tmp_path, LAYERS)
    (path.parent / "adapter_config.json").write_text(config, "utf-8")
    with pytest.raises(FileError, match=message):
        load(path)


def test_a_pattern_names_the_end_of_a_module_only(tmp_path: Path) -> None:
    path = peft(tmp_path, LAYERS)
    config = config_edit(lora_alpha=4, alpha_pattern={"attn1.to_q": 8, "to_out": 99})
    (path.parent / "adapter_config.json").write_text(config, "utf-8")
    scales = {stem: layer.scale * layer.rank for stem, layer in load(path).layers.items()}
    assert scales == {stem: pytest.approx(8 if stem.endswith("attn1_to_q") else 4) for _, _, stem, _ in MODULES}


def with_tensor(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {**tensors, name: value}


DIFFUSERS = f"unet.{ATTENTION}.to_q"
ONES = torch.ones(2, 2)

UNSUPPORTED = [
    (with_tensor(f"{DIFFUSERS}.reshape_weight", ONES), "another kind: reshaping LoRA.*Load LoRA"),
    (with_tensor(f"unet.{processor(LAYERS[0])}_lora.up.weight", ONES), "got no down"),
    (with_tensor(f"{DIFFUSERS}.lora.up.weight", ONES), "expected one up"),
]


@pytest.mark.parametrize(("edit", "message"), UNSUPPORTED)
def test_what_we_cannot_express_is_refused_and_named(
    tmp_path: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    tensors = named(LAYERS, lambda a: f"{a.side}.{a.module}", ".lora_A.weight", ".lora_B.weight")
    with pytest.raises(FileError, match=message):
        load(write(tmp_path / "a.safetensors", edit(tensors)))


def test_two_spellings_of_one_layer_are_refused(tmp_path: Path) -> None:
    tensors = {
        f"{stem}.lora_{part}.weight": torch.ones(2, 2)
        for stem in (DIFFUSERS, LAYERS[0].stem)
        for part in ("down", "up")
    }
    with pytest.raises(FileError, match="expected one layer for each weight, got several for lora_unet_down"):
        load(write(tmp_path / "a.safetensors", tensors))


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {"b": ONES}


def endless() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    tree["a"] = tree
    return tree


UP = f"{ATTENTION}.to_q.lora_up.weight"
DOWN = f"{ATTENTION}.to_q.lora_down.weight"
TOKENS = "new_concept_embedding"

MALFORMED: list[tuple[object, str]] = [
    ([1, 2], "expected a dictionary of tensors, got list"),
    ({}, "Expected LoRA layers, got none"),
    ({"params": {"unet": {UP: ONES, DOWN: ONES}, "surprise": {"x": ONES}}}, "unet, got surprise/x too"),
    ({"params": {"unet": {UP: ONES}}}, "got no down"),
    ({"params": {TOKENS: {"<x>": torch.ones(16, 4)}}}, "Expected LoRA layers, got none"),
    ({"params": {"unet": {UP: ONES, DOWN: ONES, f"{ATTENTION}.to_q.alpha": ONES}}}, "without alphas"),
    ({TOKENS: {"<x>": torch.ones(2, 2, 2)}, "unet": {UP: ONES, DOWN: ONES}}, r"expected \(layers, width\)"),
    ({TOKENS: {"<x>": torch.ones(0, 4)}, "unet": {UP: ONES, DOWN: ONES}}, r"expected \(layers, width\)"),
    (
        {TOKENS: {"<x>": torch.ones(1, 4), "<y>": torch.ones(1, 5)}, "unet": {UP: ONES, DOWN: ONES}},
        "of one width, got 4 and 5",
    ),
    (
        {TOKENS: {"<x>": torch.ones(2, 4), "<y>": torch.ones(3, 4)}, "unet": {UP: ONES, DOWN: ONES}},
        "for one number of layers, got 2 and 3",
    ),
    ({TOKENS: {"<x>": torch.ones(1, 4) / 0}, "unet": {UP: ONES, DOWN: ONES}}, "NaN or infinity"),
    ({"unet": {UP: ONES.to_sparse(), DOWN: ONES}}, f"unet/{UP}: expected a plain tensor"),
    ({"unet": {UP: ONES.to("meta"), DOWN: ONES}}, f"unet/{UP}: expected a plain tensor"),
    ({"unet": {UP: ONES.int(), DOWN: ONES}}, "floating point"),
    ({"unet": {1: ONES}}, "unet/1: expected names as text, got int"),
    (nested(4), "at most 4 dictionaries"),
    (endless(), "at most 4 dictionaries"),
    ({"state_dict": {"epoch": ONES}, "epoch": 3}, "unknown tensor epoch"),
    ({"state_dict": [ONES]}, "Expected LoRA layers, got none"),
    ({"model.diffusion_model.input_blocks.0.0.weight": ONES}, "looks like a checkpoint"),
]


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")  # torch's, before we see the tensor
@pytest.mark.parametrize(("tree", "message"), MALFORMED)
def test_malformed_pytorch_files_are_refused(tmp_path: Path, tree: object, message: str) -> None:
    path = pickled(tmp_path, tree)
    with pytest.raises(FileError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


class Harmful:
    """Unpickled without care, it makes the folder `path`."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_class_in_a_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    made = tmp_path / "made"
    tree = {"params": {"unet": {UP: ONES, DOWN: ONES}, "extra": Harmful(made)}}
    torch.save(tree, tmp_path / "hero.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileError, match="which could run code") as caught:
        load(tmp_path / "hero.pth")
    assert "weights_only" not in str(caught.value)
    assert not made.exists()
    torch.load(tmp_path / "hero.pth", weights_only=False)
    assert made.exists(), "the pickle does nothing when it is run, so the test shows nothing"


@pytest.mark.parametrize("data", [b"", b"short", b"PK\x03\x04" + b"\0" * 100, b"\xff" * 64])
def test_bytes_that_are_no_pytorch_file_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(data)
    with pytest.raises(FileError, match="expected a PyTorch file"):
        load(path)


def test_every_truncation_of_a_pytorch_file_is_noticed(tmp_path: Path) -> None:
    path = ed_lora(tmp_path, LAYERS)
    data = path.read_bytes()
    for length in range(0, len(data) - 1, 4001):
        path.write_bytes(data[:length])
        with pytest.raises(FileError, match="expected a PyTorch file"):
            load(path)


def test_missing_pytorch_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nowhere\.pth: expected a file, got none"):
        load(tmp_path / "nowhere.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(FileError, match="expected a readable file"):
        load(tmp_path / "folder.pth")
