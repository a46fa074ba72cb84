"""ComfyUI's CLIP as an Embedder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.evaluation import NoTextError
from blocklora.blocklora_core.host.evaluate.clip_embedder import ClipEmbedder

from tests.host.tiny import Base
from tests.host.tiny_clip import WIDTH, make_dual_text, make_text, make_vision


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_vision(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def text() -> Any:
    return make_text()


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 40, 24, 3, generator=torch.Generator().manual_seed(1))


def test_pictures_become_unit_vectors_one_by_one(vision: Any) -> None:
    embedder, given = ClipEmbedder(vision), pictures(20)
    found = embedder.images(given)
    assert found.shape == (20, WIDTH) and found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(20))
    for at, picture in enumerate(given):
        expected = vision.encode_image(picture[None], crop=True)["image_embeds"][0]
        torch.testing.assert_close(found[at], expected / expected.norm(), atol=1e-5, rtol=1e-4)


def test_texts_are_the_projected_vectors(vision: Any, text: Any) -> None:
    embedder = ClipEmbedder(vision, text)
    found = embedder.texts(["a cat", "a (dog:1.3)"])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    pooled = text.encode_from_tokens(text.tokenize("a cat"), return_pooled=True)[1]
    projection = text.cond_stage_model.clip_l.transformer.text_projection.weight.float()
    # What SD1.5's encoder hands out is not projected yet.
    expected = (pooled @ projection.T)[0]
    torch.testing.assert_close(found[0], expected / expected.norm(), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[1])


def test_the_encoder_is_left_as_it_was(vision: Any, text: Any) -> None:
    model = text.cond_stage_model.clip_l
    before = (model.layer, model.layer_idx, model.return_projected_pooled)
    ClipEmbedder(vision, text).texts(["a cat"])
    assert (model.layer, model.layer_idx, model.return_projected_pooled) == before


@pytest.mark.parametrize(("left", "right", "chosen"), [(WIDTH, 96, "clip_l"), (96, WIDTH, "clip_g")])
def test_of_two_encoders_the_one_that_fits_reads(vision: Any, left: int, right: int, chosen: str) -> None:
    dual = make_dual_text(left, right)
    embedder = ClipEmbedder(vision, dual)
    assert embedder.encoder == chosen
    child = getattr(dual.cond_stage_model, chosen)
    expected = child.encode_token_weights(dual.tokenize("a cat")[chosen[-1]])[1][0]
    torch.testing.assert_close(embedder.texts(["a cat"])[0], expected / expected.norm(), atol=1e-5, rtol=1e-4)


def test_widths_that_disagree_are_an_error_that_names_pairs_that_fit(vision: Any, base: Base) -> None:
    with pytest.raises(ValueError, match=rf"as wide as CLIP_VISION's, {WIDTH}, got clip_l of 768.*bigG.*disconnect"):
        ClipEmbedder(vision, base.clip)


def test_an_encoder_without_clip_is_an_error(vision: Any) -> None:
    other = SimpleNamespace(cond_stage_model=torch.nn.Module())
    with pytest.raises(ValueError, match="got no CLIP text encoder"):
        ClipEmbedder(vision, other)


@pytest.mark.parametrize("weight", [torch.eye(WIDTH), torch.zeros(WIDTH, WIDTH), torch.full((WIDTH, WIDTH), torch.nan)])
def test_a_file_without_a_projection_has_no_text_side(vision: Any, weight: torch.Tensor) -> None:
    clip = make_text()
    clip.cond_stage_model.clip_l.transformer.text_projection.weight.data.copy_(weight)
    embedder = ClipEmbedder(vision, clip)
    assert embedder.notes == ()
    with pytest.raises(NoTextError, match="no text_projection"):
        embedder.texts(["a cat"])


def test_without_a_text_clip_there_is_no_text(vision: Any) -> None:
    with pytest.raises(NoTextError, match="no text CLIP is connected"):
        ClipEmbedder(vision).texts(["a cat"])


def test_random_weights_do_not_know_colours(vision: Any, text: Any) -> None:
    (note,) = ClipEmbedder(vision, text).notes
    assert note.startswith("Text alignment is doubtful: of 6 plain colours")


class _Colourful:
    """Sees the colour, in the space in which `_colour_reader` puts its name."""

    def encode_image(self, image: torch.Tensor) -> dict[str, Any]:
        return {"image_embeds": image.mean((1, 2)).repeat(1, WIDTH)[:, :WIDTH] - 0.4}


def test_any_object_that_encodes_images_will_do() -> None:
    embedder = ClipEmbedder(_Colourful())
    assert embedder.width == WIDTH and embedder.images(pictures(3)).shape == (3, WIDTH)


def test_colours_that_are_known_raise_no_doubt(text: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"black": (0, 0, 0), "white": (1, 1, 1), "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}

    def read(_self: ClipEmbedder, prompt: str) -> torch.Tensor:
        colour = names.get(prompt.split()[-1], (1, 1, 0))
        return _Colourful().encode_image(torch.tensor(colour).float().expand(1, 4, 4, 3))["image_embeds"]

    monkeypatch.setattr(ClipEmbedder, "_read", read)
    assert ClipEmbedder(_Colourful(), text).notes == ()


@pytest.mark.parametrize("found", [None, torch.zeros(1, 5, 8)])
def test_a_vision_model_without_embeddings_is_an_error(found: Any) -> None:
    vision = SimpleNamespace(encode_image=lambda _image: {"image_embeds": found})
    with pytest.raises(ValueError, match="expected one image embedding for each picture"):
        ClipEmbedder(vision)
