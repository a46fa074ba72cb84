from __future__ import annotations

import pytest
import torch

from blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora_core.concept.layer import Layer, ShapeError
from blocklora_core.concept.rows import Scheme, index
from tests.core.samples import CONV, GEGLU, KEY, QUERY, TEXT, Recipe, inputs, make_layer, with_grams


@pytest.mark.parametrize("name", ["", "<>", "two words", "a(b", "a)b", "a:1.2", "a,b", "a\\b", "{a|b}", "a\nb"])
def test_names_that_clash_with_prompts_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Concept name: expected"):
        Concept(name)


@pytest.mark.parametrize(("name", "bare"), [("<hero>", "hero"), ("hero", "hero"), ("<h\u00e9ros-2>", "h\u00e9ros-2")])
def test_names(name: str, bare: str) -> None:
    assert Concept(name, "man").bare == bare


@pytest.mark.parametrize("name", [QUERY, GEGLU, CONV])
def test_dense_is_the_delta_on_its_rows_and_zero_elsewhere(name: str) -> None:
    shape = (64, 8, 3, 3) if name == CONV else (64, 12)
    scheme = Scheme(slots=4)
    layer = make_layer(name, shape, scheme, 1, scale=0.5)
    dense, held = layer.dense(), index(layer.rows)
    product = 0.5 * torch.einsum("mr,rn->mn", layer.up.flatten(1), layer.down.flatten(1))
    torch.testing.assert_close(dense[held], product.reshape(-1, *shape[1:]))
    assert dense.shape == layer.weight_shape == shape
    outside = torch.ones(shape[0], dtype=torch.bool)
    outside[held] = False
    assert outside.any()
    assert not dense[outside].any()
    assert torch.equal(layer.full_up()[held], layer.up)


def test_half_precision_layers_multiply_in_float32() -> None:
    layer = make_layer(QUERY, (40, 12), dtype=torch.float16)
    assert layer.delta().dtype == torch.float32
    torch.testing.assert_close(layer.delta(), layer.up.float() @ layer.down.float())


def test_helpers_change_one_thing() -> None:
    layer = make_layer(QUERY, (40, 12), scale=2.0)
    torch.testing.assert_close(layer.scaled(0.5).dense(), 0.5 * layer.dense())
    assert layer.with_down(layer.down * 0).dense().abs().sum() == 0
    assert layer.with_up(layer.up * 0).dense().abs().sum() == 0
    assert (layer.rank, layer.in_features) == (2, 12)


@pytest.mark.parametrize(
    ("trained", "model"),
    [((6, 4), (6, 4, 1, 1)), ((6, 4, 1, 1), (6, 4)), ((6, 4, 1), (6, 4, 1, 1)), ((6, 36), (6, 4, 3, 3))],
)
def test_a_1x1_kernel_may_be_left_out_and_any_be_a_row(trained: tuple[int, ...], model: tuple[int, ...]) -> None:
    layer = make_layer(QUERY, trained, scale=2.0)
    fitted = layer.fitted(model)
    assert fitted.weight_shape == model
    assert torch.equal(fitted.dense().flatten(), layer.dense().flatten())
    assert layer.fitted(trained).weight_shape == trained


@pytest.mark.parametrize("model", [(4, 6), (6, 4, 3, 3), (6, 4, 3, 1), (6, 5)])
def test_a_weight_of_another_shape_is_refused(model: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected shape .* the layer's is \(6, 4\)"):
        make_layer(QUERY, (6, 4)).fitted(model)


BAD_LAYERS = [
    (torch.zeros(4, 2), torch.zeros(3, 5), (range(4),), 8, 1.0, "equal ranks"),
    (torch.zeros(5, 2), torch.zeros(2, 5), (range(4),), 8, 1.0, "Expected 4 rows in up"),
    (torch.zeros(4, 2), torch.zeros(2, 5), (range(6, 10),), 8, 1.0, "rows below 8"),
    (torch.zeros(4, 2), torch.zeros(2, 5), (range(2), range(2, 4)), 8, 1.0, "rows in up"),
    (torch.zeros(4), torch.zeros(2, 5), (range(4),), 8, 1.0, "Expected up"),
    (torch.zeros(4, 2, 3, 3), torch.zeros(2, 5, 1, 1), (range(4),), 8, 1.0, "Expected up"),
    (torch.zeros(4, 0), torch.zeros(0, 5), (range(4),), 8, 1.0, "rank of at least 1"),
    (torch.zeros(4, 2), torch.zeros(2, 5), (range(4),), 8, float("inf"), "finite scale"),
]


@pytest.mark.parametrize(("up", "down", "rows", "m", "scale", "message"), BAD_LAYERS)
def test_mis_shaped_layers_are_refused(up, down, rows, m, scale, message) -> None:
    with pytest.raises(ValueError, match=message):
        Layer(up, down, rows, m, scale)


def test_half_a_slot_and_bad_strengths_are_refused() -> None:
    with pytest.raises(ValueError, match="scheme and a slot, or neither"):
        BlockLoRA(Concept("a"), {}, Scheme(), None)
    with pytest.raises(ValueError, match="from 0 to 15"):
        BlockLoRA(Concept("a"), {}, Scheme(), 16)
    with pytest.raises(ValueError, match="finite strengths"):
        BlockLoRA(Concept("a"), {}, strength=float("nan"))


def test_strengths() -> None:
    lora = Recipe().make("<a>").with_strength(0.5)
    assert (lora.strength, lora.effective_strength_clip) == (0.5, 0.5)
    assert lora.with_strength(0.5, 0.25).effective_strength_clip == 0.25


def test_renaming_takes_the_grams_along() -> None:
    lora = Recipe().make("<a>")
    lora = with_grams(lora, inputs(lora, 1))
    renamed = lora.renamed_layers({QUERY: "diffusion_model.q.weight"})
    assert set(renamed.layers) == {"diffusion_model.q.weight", KEY, GEGLU, CONV, TEXT}
    assert renamed.grams is not None
    assert renamed.grams.covers(set(renamed.layers) - {CONV})
    assert not renamed.grams.covers([QUERY])


def test_renaming_two_layers_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match="several for x"):
        Recipe().make("<a>").renamed_layers({QUERY: "x", KEY: "x"})


def test_a_renamed_concept_keeps_its_class_word_and_layers() -> None:
    lora = BlockLoRA(Concept("<hero>", "man"), {})
    other = lora.renamed("<rival>")
    assert (other.concept.name, other.concept.class_word) == ("<rival>", "man")
    with pytest.raises(ValueError, match="one word"):
        lora.renamed("two words")
