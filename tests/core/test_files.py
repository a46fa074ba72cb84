from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from blocklora_core.concept.concept import BlockLoRA
from blocklora_core.concept.rows import Scheme, count, index
from blocklora_core.files import record as metadata
from blocklora_core.files.io import FileError, load, read_header, save
from blocklora_core.files.shown import _TRAINING_FIELDS
from blocklora_core.training import TrainConfig
from tests.core.samples import CONV, GEGLU, KEY, QUERY, SHAPES, TEXT, Recipe, inputs, with_grams

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
SCHEMES = [Scheme(), Scheme(slots=3), None]

Tensors = dict[str, Tensor]
Entries = dict[str, str]
Edit = Callable[[Tensors, Entries], None]


def assert_same(a: BlockLoRA, b: BlockLoRA) -> None:
    assert (a.concept, a.scheme, a.slot, a.base) == (b.concept, b.scheme, b.slot, b.base)
    assert dict(a.training) == dict(b.training)
    assert set(a.layers) == set(b.layers)
    for name, layer in a.layers.items():
        other = b.layers[name]
        assert (layer.rows, layer.out_features, layer.scale) == (other.rows, other.out_features, other.scale)
        assert torch.equal(layer.up, other.up)
        assert torch.equal(layer.down, other.down)
        assert layer.up.dtype == other.up.dtype
    assert a.embeddings.keys() == b.embeddings.keys()
    assert all(torch.equal(a.embeddings[key], b.embeddings[key]) for key in a.embeddings)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_reading_gives_back_exactly_the_block(tmp_path: Path, scheme: Scheme | None, dtype: torch.dtype) -> None:
    lora = Recipe(scheme, dtype=dtype, scale=0.5).make("<hero>", 2)
    back = load(save(tmp_path / "a.safetensors", lora, dtype=dtype))
    assert_same(back, lora)
    assert back.metadata == {}
    assert back.source == str(tmp_path / "a.safetensors")


def test_grams_travel_along_exactly(tmp_path: Path) -> None:
    lora = Recipe(dtype=torch.float16).make("<hero>")
    lora = with_grams(lora, inputs(lora, 1), k=4)
    back = load(save(tmp_path / "a.safetensors", lora))
    assert lora.grams is not None
    assert back.grams is not None and back.grams.input_of == lora.grams.input_of
    for name in lora.grams.input_of:
        assert torch.equal(back.grams.of(name).dense(), lora.grams.of(name).dense())


def test_a_slot_without_rows_travels_too(tmp_path: Path) -> None:
    lora = Recipe(dtype=torch.float16, shapes={QUERY: (4, 6), KEY: (40, 6)}).make("<hero>", 0)
    assert count(lora.layers[QUERY].rows) == 0
    assert_same(load(save(tmp_path / "a.safetensors", lora)), lora)


def test_file_is_an_ordinary_lora_with_zero_rows(tmp_path: Path) -> None:
    lora = Recipe(scale=0.5).make("<hero>", 3)
    path = save(tmp_path / "a.safetensors", lora, dtype=torch.float32)
    tensors = safetensors.torch.load_file(path)
    for name, layer in lora.layers.items():
        up, down = tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"]
        scale = tensors[f"{name}.alpha"].item() / down.shape[0]
        stock = scale * (up.flatten(1) @ down.flatten(1)).reshape(SHAPES[name])
        torch.testing.assert_close(stock, layer.dense())
        outside = torch.ones(up.shape[0], dtype=torch.bool)
        outside[index(layer.rows)] = False
        assert not up[outside].any()
    assert tensors[f"{CONV}.lora_up.weight"].shape == (40, 2, 1, 1)
    assert torch.equal(tensors["bundle_emb.hero.string_to_param.*"], lora.embeddings["clip_l"])


def test_several_text_encoders_get_a_tensor_each(tmp_path: Path) -> None:
    embeddings = {"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}
    lora = replace(Recipe().make("<hero>"), embeddings=embeddings, base="sdxl")
    path = save(tmp_path / "a.safetensors", lora)
    assert {"bundle_emb.hero.clip_l", "bundle_emb.hero.clip_g"} <= set(read_header(path))
    assert load(path).embeddings.keys() == embeddings.keys()


def test_managers_find_their_fields(tmp_path: Path) -> None:
    settings = {**TrainConfig.of(steps=250, text_learning_rate=0.0001).to_dict(), "images": 13, "resolution": 64}
    lora = replace(Recipe(scale=0.5).make("<hero>", 3), training=settings)
    shown = read_header(save(tmp_path / "a.safetensors", lora))["__metadata__"]
    assert all(isinstance(value, str) for value in shown.values())
    assert shown["ss_output_name"] == "hero"
    assert shown["ss_network_module"] == "networks.lora"
    assert (shown["ss_network_dim"], shown["ss_network_alpha"]) == ("2", "1")
    assert shown["ss_base_model_version"] == "sd_v1"
    assert (shown["ss_max_train_steps"], shown["ss_num_train_images"]) == ("250", "13")
    assert (shown["ss_learning_rate"], shown["ss_unet_lr"], shown["ss_text_encoder_lr"]) == ("0.001", "0.001", "0.0001")
    assert json.loads(shown["ss_tag_frequency"]) == {"hero": {"<hero> man": 13}}
    assert shown["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert shown["modelspec.trigger_phrase"] == "<hero> man"
    assert shown["modelspec.resolution"] == "64x64"
    assert "date" not in " ".join(shown)


def test_same_value_same_bytes(tmp_path: Path) -> None:
    lora = with_grams(Recipe().make("<hero>"), inputs(Recipe().make("<hero>"), 1), k=4)
    one = save(tmp_path / "a.safetensors", lora)
    shuffled = replace(lora, layers=dict(reversed(list(lora.layers.items()))))
    two = save(tmp_path / "b.safetensors", shuffled)
    three = save(tmp_path / "c.safetensors", load(one))
    assert one.read_bytes() == two.read_bytes() == three.read_bytes()


def test_foreign_metadata_is_kept_and_wins(tmp_path: Path) -> None:
    lora = replace(Recipe().make("<hero>"), metadata={"mine": "kept", "ss_training_comment": "my words"})
    back = load(save(tmp_path / "a.safetensors", lora))
    assert back.metadata == {"mine": "kept", "ss_training_comment": "my words"}


def test_header_alone_tells_the_slot(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", Recipe().make("<hero>", 5))
    record = metadata.read_record(read_header(path)["__metadata__"])
    assert record is not None
    assert (record.slot, record.scheme, record.concept.name) == (5, Scheme(), "<hero>")
    assert record.layers[QUERY] == (40, Scheme().rows(5, 40), ())


def test_writing_is_atomic_and_never_overwrites_unasked(tmp_path: Path) -> None:
    path = save(tmp_path / "new" / "a.safetensors", Recipe().make("<hero>"))
    before = path.read_bytes()
    with pytest.raises(FileError, match="one that exists"):
        save(path, Recipe().make("<other>"))
    assert path.read_bytes() == before
    save(path, Recipe().make("<other>"), overwrite=True)
    assert load(path).concept.name == "<other>"
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.safetensors", Recipe().make("<hero>"))

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(path, Recipe().make("<other>"), overwrite=True)
    assert load(path).concept.name == "<hero>"
    assert len(list(tmp_path.iterdir())) == 1


def with_query(lora: BlockLoRA, **changes: Any) -> BlockLoRA:
    return lora.with_layers({**lora.layers, QUERY: replace(lora.layers[QUERY], **changes)})


UNSAVABLE: list[tuple[Callable[[BlockLoRA], BlockLoRA], str]] = [
    (lambda a: with_query(a, up=a.layers[QUERY].up * float("nan")), "NaN or infinity"),
    (lambda a: with_query(a, down=a.layers[QUERY].down * 1e7), "fit torch.float16.*Save in float32"),
    (lambda a: with_query(a, rows=(range(30, 30 + a.layers[QUERY].up.shape[0]),)), "expected rows 0-1"),
    (lambda a: replace(a, training={"oops": torch.ones(1)}), "plain JSON"),
    (lambda a: replace(a, training={"loss": float("nan")}), "plain JSON"),
    (lambda a: replace(a, layers={}, embeddings={}), "expected layers to save"),
]


@pytest.mark.parametrize(("change", "message"), UNSAVABLE)
def test_what_cannot_be_stored_is_refused(
    tmp_path: Path, change: Callable[[BlockLoRA], BlockLoRA], message: str
) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileError, match=message):
        save(path, change(Recipe().make("<hero>")))
    assert not path.exists()


def test_bad_names_and_dtypes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"ends in \.safetensors"):
        save(tmp_path / "a.pt", Recipe().make("<hero>"))
    with pytest.raises(FileError, match="float16, bfloat16 or float32"):
        save(tmp_path / "a.safetensors", Recipe().make("<hero>"), dtype=torch.int8)


def plain_tensors(down: str = ".lora_down.weight", up: str = ".lora_up.weight", stem: str = QUERY) -> Tensors:
    return {f"{stem}{down}": torch.ones(2, 6), f"{stem}{up}": torch.ones(8, 2)}


@pytest.mark.parametrize(
    ("down", "up", "stem", "expected"),
    [
        (".lora_down.weight", ".lora_up.weight", QUERY, QUERY),
        (".lora_A.weight", ".lora_B.weight", "unet.mid_block.x.to_q", "lora_unet_mid_block_x_to_q"),
        (".lora_A.mine.weight", ".lora_B.mine.weight", "transformer.blocks.0.to_q", "transformer.blocks.0.to_q"),
        ("_lora.down.weight", "_lora.up.weight", "mid_block.x.processor.to_q", "lora_unet_mid_block_x_to_q"),
        (".lora.down.weight", ".lora.up.weight", "unet.mid_block.x.to_q", "lora_unet_mid_block_x_to_q"),
    ],
)
def test_plain_loras_of_every_dialect_are_read(tmp_path: Path, down: str, up: str, stem: str, expected: str) -> None:
    path = tmp_path / "My LoRA (v2).safetensors"
    safetensors.torch.save_file(plain_tensors(down, up, stem), path)
    lora = load(path)
    layer = lora.layers[expected]
    assert (lora.scheme, lora.slot, lora.base) == (None, None, "")
    assert lora.concept.name == "My-LoRA--v2"
    assert (layer.rows, layer.scale, layer.rank) == ((range(8),), 1.0, 2)


def test_plain_loras_keep_alpha_trigger_base_embedding_and_metadata(tmp_path: Path) -> None:
    entries = {"modelspec.trigger_phrase": "ohwx", "ss_base_model_version": "sdxl_base_v1-0"}
    tensors = {**plain_tensors(), f"{QUERY}.alpha": torch.tensor(1.0)}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", entries)
    lora = load(tmp_path / "a.safetensors")
    assert (lora.concept.name, lora.base, lora.layers[QUERY].scale) == ("ohwx", "sdxl", 0.5)
    assert lora.metadata == entries
    tensors["bundle_emb.zed.clip_l"] = torch.ones(1, 768)
    safetensors.torch.save_file(tensors, tmp_path / "b.safetensors", entries)
    lora = load(tmp_path / "b.safetensors")
    assert (lora.concept.name, list(lora.embeddings)) == ("zed", ["clip_l"])


def edited(tmp_path: Path, edit: Edit) -> Path:
    """A sound file, opened, edited and written again."""
    path = save(tmp_path / "a.safetensors", with_grams(lora := Recipe().make("<hero>", 1), inputs(lora, 1), k=4))
    tensors, entries = safetensors.torch.load_file(path), read_header(path)["__metadata__"]
    edit(tensors, entries)
    safetensors.torch.save_file(tensors, path, entries)
    return path


def record_edit(**changes: object) -> Edit:
    def edit(_: Tensors, entries: Entries) -> None:
        entries["blocklora"] = json.dumps({**json.loads(entries["blocklora"]), **changes})

    return edit


def tensor_edit(name: str, change: Callable[[Tensor], Tensor | None]) -> Edit:
    def edit(tensors: Tensors, _: Entries) -> None:
        value = change(tensors.pop(name))
        if value is not None:
            tensors[name] = value.contiguous()

    return edit


def drop_layer(tensors: Tensors, _: Entries) -> None:
    for suffix in (".lora_up.weight", ".lora_down.weight", ".alpha"):
        del tensors[QUERY + suffix]


UP, DOWN, ALPHA = f"{QUERY}.lora_up.weight", f"{QUERY}.lora_down.weight", f"{QUERY}.alpha"
EMBEDDING = "bundle_emb.hero.string_to_param.*"

DAMAGED: list[tuple[Edit, str]] = [
    (record_edit(format=2), "format 1, got 2. Update"),
    (record_edit(scheme={"version": 9, "slots": 16, "layout": "contiguous"}), "version: expected 1 or 2, got 9"),
    (
        record_edit(scheme={"version": 1, "slots": 16, "layout": "interleaved"}),
        "Row layout: expected contiguous, got 'interleaved'.* stock Load LoRA",
    ),
    (record_edit(slot=2), "expected rows .* as slot 2 gives"),
    (record_edit(slot=16), "from 0 to 15, got 16"),
    (record_edit(slot=None), "scheme with a slot, or neither"),
    (record_edit(concept="two words"), "Concept name: expected"),
    (record_edit(concept=7), "BlockLoRA metadata"),
    (record_edit(layers=[]), "BlockLoRA metadata"),
    (record_edit(layers={QUERY: {"out": 40}}), "'rows' in the BlockLoRA metadata"),
    (record_edit(layers={QUERY: {"out": "x", "rows": []}}), "BlockLoRA metadata"),
    (record_edit(layers={}), "agree, got .* in the tensors only"),
    (record_edit(embeddings={}), "agree, got bundle_emb.* in the tensors only"),
    (record_edit(grams=None), "agree, got blocklora.grams in the tensors only"),
    (record_edit(grams={"version": 1}), "damaged"),
    (record_edit(grams=7), "BlockLoRA metadata"),
    (lambda _, e: e.update(blocklora="{"), "Expected JSON"),
    (lambda _, e: e.update(blocklora="[]"), "JSON object"),
    (drop_layer, "in the metadata only"),
    (tensor_edit(EMBEDDING, lambda _: None), "agree, got bundle_emb.* in the metadata only"),
    (tensor_edit(EMBEDDING, lambda x: x[0]), r"expected \(tokens, width\)"),
    (tensor_edit(UP, lambda _: None), "got no up"),
    (tensor_edit(DOWN, lambda _: None), "got no down"),
    (tensor_edit(DOWN, lambda x: x[:1]), "equal ranks"),
    (tensor_edit(DOWN, lambda x: x[0]), "expected matrices"),
    (tensor_edit(UP, lambda x: x[:-1]), "expected 40 rows in up.* got 39"),
    (tensor_edit(UP, lambda x: x + 1), "expected zeros outside rows 2-4, got others in row 0"),
    (tensor_edit(UP, lambda x: x / 0), "NaN or infinity"),
    (tensor_edit(DOWN, lambda x: x.to(torch.int32)), "floating point"),
    (tensor_edit(ALPHA, lambda _: torch.tensor(float("inf"))), "finite alpha"),
    (tensor_edit(ALPHA, lambda _: torch.ones(2)), "one real number for alpha"),
    (tensor_edit(ALPHA, lambda _: torch.tensor(1j)), "one real number for alpha"),
    (tensor_edit("blocklora.grams", lambda x: x[:-8]), "Grams: expected"),
]


@pytest.mark.parametrize(("edit", "message"), DAMAGED)
def test_damaged_files_are_refused_with_the_reason(tmp_path: Path, edit: Edit, message: str) -> None:
    path = edited(tmp_path, edit)
    with pytest.raises(FileError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


ALIEN: list[tuple[Tensors, str]] = [
    ({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(1)}, "looks like a checkpoint"),
    ({"double_blocks.0.img_attn.qkv.weight": torch.ones(1)}, "looks like a diffusion model"),
    ({"emb_params": torch.ones(1, 768)}, "looks like a textual inversion embedding"),
    ({"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}, "looks like a textual inversion"),
    ({"decoder.conv_in.weight": torch.ones(1)}, "looks like a VAE"),
    ({f"{QUERY}.hada_w{i}": torch.ones(1) for i in ("1_a", "1_b")}, "all parts of a LoHa, got no hada_w2_a, hada_w2_b"),
    ({f"{QUERY}.lokr_w1": torch.ones(1)}, "all parts of a LoKr, got no lokr_w2"),
    ({f"{QUERY}.dora_scale": torch.ones(8, 1)}, "all parts of a LoRA, got no lora_down.weight, lora_up.weight"),
    ({**plain_tensors(), f"{QUERY}.diff": torch.ones(8, 6)}, "expected one change of a weight, got LoRA, diff"),
    ({**plain_tensors(), f"{QUERY}.b_norm": torch.ones(8)}, "got no w_norm"),
    ({f"{QUERY}.oft_blocks": torch.full((2, 2, 2), torch.nan)}, "expected finite values"),
    ({f"{QUERY}.diff": torch.ones(2, 2), f"{QUERY}.alpha": torch.ones(2)}, "one real number for alpha"),
    ({**plain_tensors(), f"{QUERY}.lora_mid.weight": torch.ones(2, 2)}, r"expected down \(r, n, 1, 1\) and mid"),
    ({**plain_tensors(), f"{KEY}.reshape_weight": torch.ones(2)}, "another kind: reshaping LoRA.*Load LoRA"),
    ({**plain_tensors(), f"{QUERY}.lora_A.weight": torch.ones(2, 6)}, "expected one down"),
    ({"surprise": torch.ones(2)}, "unknown tensor surprise"),
    ({}, "Expected LoRA layers, got none"),
]


@pytest.mark.parametrize(("tensors", "message"), ALIEN)
def test_other_files_are_refused_with_the_reason(tmp_path: Path, tensors: Tensors, message: str) -> None:
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(FileError, match=message):
        load(tmp_path / "a.safetensors")


def packed(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


BYTES = [
    (b"", "expected a safetensors file"),
    (b"short", "expected a safetensors file"),
    (b"PK\x03\x04" + b"\0" * 100, "expected a safetensors file"),
    (struct.pack("<Q", 2**60) + b"{}", "expected a safetensors file"),
    (packed([1]), "expected a safetensors file"),
    (packed({"a": 1}), "expected a safetensors file"),
    (packed({"__metadata__": {"a": 1}}), "expected a safetensors file"),
    (struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc", "expected a safetensors file"),
    (packed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "truncated"),
    (
        packed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 9),
        "truncated or damaged",
    ),
    (packed({UP: {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4), "a.safetensors: "),
]


@pytest.mark.parametrize(("data", "message"), BYTES)
def test_bytes_that_are_no_safetensors_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(FileError, match=message):
        load(path)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", Recipe().make("<hero>"))
    data = path.read_bytes()
    for length in [*range(0, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(FileError, match=r"truncated|safetensors file"):
            load(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nowhere\.safetensors: expected a file, got none"):
        load(tmp_path / "nowhere.safetensors")
    with pytest.raises(FileError, match="expected a readable file"):
        load(tmp_path)


def test_text_layers_and_geglu_are_among_the_samples() -> None:
    assert {TEXT, GEGLU} <= set(SHAPES)


def test_what_managers_show_of_a_training_is_what_trainings_record() -> None:
    recorded = {*TrainConfig().to_dict(), "images", "steps_done", "resolution"}
    assert set(_TRAINING_FIELDS.values()) <= recorded
