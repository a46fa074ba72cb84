"""The recipe of the base that draws people: its layout, its start, and stages that go on after a kill."""

from __future__ import annotations

from pathlib import Path

import comfy.ops
import numpy as np
import pytest
import torch
from comfy import model_detection
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.sd1_clip import SDTokenizer
from comfy.supported_models import SD15
from comfy.taesd.taesd import TAESD
from PIL import Image

from demo.base import UNET, UNET_CONFIG
from demo.people.recipe import autoencoder, denoiser, latents
from demo.people.recipe.autoencoder import AutoencoderRecipe, crop_batch, psnr, train_autoencoder
from demo.people.recipe.denoiser import Batches, DenoiserRecipe, min_snr_loss, resume, train_denoiser
from demo.people.recipe.latents import Bucket, encode_corpus, load_buckets
from demo.people.recipe.layout import initialise_unet, new_autoencoder, pass_through
from demo.people.recipe.stages import save_state
from demo.people.scenes import TRAINING, Record, draw_scene
from demo.text_encoder import FastTextEncoder
from tests.host.dynamic import WANTED, with_weights


@with_weights()
def meta_unet() -> UNetModel:
    return UNetModel(**UNET_CONFIG, dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init)


@with_weights()
def small_unet() -> UNetModel:
    torch.manual_seed(0)
    config = {**UNET_CONFIG, "model_channels": 32, "context_dim": 8, "num_heads": 4}
    unet = UNetModel(**config, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    initialise_unet(unet)
    return unet


def test_comfyui_takes_the_layout_for_sd15_and_finds_it_again() -> None:
    state = {UNET + name: tensor for name, tensor in meta_unet().state_dict().items()}
    found = model_detection.model_config_from_unet(state, UNET)
    assert isinstance(found, SD15)
    layout = ("num_res_blocks", "channel_mult", "transformer_depth", "transformer_depth_middle",
              "transformer_depth_output", "context_dim", "model_channels")  # fmt: skip
    assert {key: found.unet_config[key] for key in layout} == {key: UNET_CONFIG[key] for key in layout}


def test_a_new_unet_begins_by_passing_pictures_through() -> None:
    unet = small_unet()
    pass_through(unet)
    picture = torch.rand(1, 32, 8, 8)
    small = unet.input_blocks[2][0].op(picture)
    torch.testing.assert_close(small[0, 0, 1, 1], picture[0, 0, 2:4, 2:4].mean())
    large = unet.output_blocks[2][-1](small)
    torch.testing.assert_close(large[0, :, ::2, ::2], small[0])
    assert not unet(torch.rand(1, 4, 8, 8), torch.tensor([5]), context=torch.rand(1, 3, 8)).any()


def test_captions_fit_into_one_prompt() -> None:
    tokenizer = SDTokenizer()
    for number in range(300):
        assert len(tokenizer.tokenize_with_weights(draw_scene(TRAINING, 9, number).caption)) == 1


def test_min_snr_weighs_the_error_of_clean_steps_down() -> None:
    noise, predicted = torch.zeros(2, 4, 2, 2), torch.ones(2, 4, 2, 2)
    alpha = torch.tensor([10 / 11, 1 / 2]).view(2, 1, 1, 1)  # signal-to-noise ratios 10 and 1
    assert min_snr_loss(predicted, noise, alpha, limit=5.0).item() == pytest.approx((0.5 + 1) / 2)


class KilledError(Exception):
    """Stands for a kill."""


def pictures() -> list[np.ndarray]:
    rng = np.random.RandomState(0)
    return [rng.randint(0, 256, (32, 40, 3)).astype(np.uint8) for _ in range(3)]


def seeded_autoencoder() -> TAESD:
    torch.manual_seed(1)
    return new_autoencoder()


def test_a_killed_autoencoder_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = AutoencoderRecipe(steps=4, batch=1, crop=16, checkpoint_seconds=0.0)
    whole = train_autoencoder(seeded_autoencoder(), pictures(), recipe, tmp_path / "whole")
    calls = []

    def crops_until_killed(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KilledError
        return crop_batch(*arguments)

    monkeypatch.setattr(autoencoder, "crop_batch", crops_until_killed)
    with pytest.raises(KilledError):
        train_autoencoder(seeded_autoencoder(), pictures(), recipe, tmp_path / "killed")
    resumed = train_autoencoder(seeded_autoencoder(), pictures(), recipe, tmp_path / "killed")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_decoder_only_keeps_the_latents(tmp_path: Path) -> None:
    recipe = AutoencoderRecipe(steps=2, batch=1, crop=16, decoder_only=True)
    before = seeded_autoencoder()
    after = train_autoencoder(seeded_autoencoder(), pictures(), recipe, tmp_path / "state")
    kept = after.taesd_encoder.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in before.taesd_encoder.state_dict().items())
    assert not torch.equal(before.taesd_decoder[1].weight, after.taesd_decoder[1].weight)


class Halver(TAESD):
    """Latents that say which picture they are of."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1, ::8, ::8].float()


def test_latents_are_kept_in_parts_and_only_missing_ones_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "PART", 3)
    records = []
    for number in range(7):
        width = 16 if number % 2 else 8
        Image.new("RGB", (width, 8), (number * 10,) * 3).save(tmp_path / f"{number}.png")
        records.append({"file": f"{number}.png", "width": width, "caption": str(number)})

    def encode(wanted: list[Record]) -> dict[int, list[int]]:
        encode_corpus(wanted, tmp_path, Halver(), lambda text: [int(text)] * 77, tmp_path / "latents")
        return {bucket.latents.shape[-1]: bucket.ids[:, 0].tolist() for bucket in load_buckets(tmp_path / "latents")}

    assert encode(records[:4]) == {1: [0, 2], 2: [1]}
    written = (tmp_path / "latents" / "000000.pt").stat().st_mtime_ns
    assert encode(records) == {1: [0, 2, 4], 2: [1, 3, 5]}
    assert (tmp_path / "latents" / "000000.pt").stat().st_mtime_ns == written
    for bucket in load_buckets(tmp_path / "latents"):
        shade = ((bucket.latents[:, 0, 0, 0].float() / autoencoder.LATENT_SCALE + 1) * 127.5).round()
        assert shade.tolist() == pytest.approx([number * 10 for number in bucket.ids[:, 0].tolist()], abs=1)


class Features(FastTextEncoder):
    """Features that tell ids apart, without an encoder."""

    def __init__(self) -> None:
        super().__init__({})

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        return (ids[:, :, None] * torch.arange(1, 9) / 50).sin()


def batches(recipe: DenoiserRecipe) -> Batches:
    generator = torch.Generator().manual_seed(0)
    buckets = [
        Bucket(torch.randn(5, 4, 8, width, generator=generator).half(), torch.randint(50, (5, 77), generator=generator))
        for width in (8, 12)
    ]
    return Batches(buckets, Features(), [0] * 77, recipe)


def train_small(state_file: Path, steps: int, recipe: DenoiserRecipe) -> denoiser.Trainee:
    trainee = resume(small_unet, recipe, state_file, "cpu")
    train_denoiser(trainee, batches(recipe), recipe, state_file, lambda trainee: trainee.step >= steps)
    return trainee


@pytest.mark.skipif(
    WANTED, reason="the recipe trains without Dynamic VRAM, under which a state's tensors become the weights"
)
def test_a_second_sitting_of_the_denoiser_goes_on_as_if_it_were_the_first(tmp_path: Path) -> None:
    recipe = DenoiserRecipe(batch=2)
    whole = train_small(tmp_path / "whole", 4, recipe)
    train_small(tmp_path / "sittings", 2, recipe)
    resumed = train_small(tmp_path / "sittings", 4, recipe)
    assert resumed.step == whole.step == 4
    for one, other in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.equal(one, other)


def test_one_size_to_a_batch_and_one_caption_in_ten_empty() -> None:
    recipe = DenoiserRecipe(batch=2)
    draw = batches(recipe)
    shapes, empty = set(), 0
    for step in range(200):
        clean, context = draw(step)
        shapes.add(tuple(clean.shape))
        empty += int((context == 0).all(2).all(1).sum())
    assert shapes == {(2, 4, 8, 8), (2, 4, 8, 12)}
    assert 20 < empty < 65


def test_the_rate_warms_up_stays_and_falls_only_when_told() -> None:
    steady = DenoiserRecipe(learning_rate=1.0, warmup=10)
    assert [steady.rate(step) for step in (0, 4, 9, 100_000)] == [0.1, 0.5, 1.0, 1.0]
    falling = DenoiserRecipe(learning_rate=1.0, warmup=1, fall_from=100, fall_steps=50)
    assert [falling.rate(step) for step in (99, 100, 125, 150, 151)] == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_a_state_is_whole_or_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state({"step": 1}, tmp_path / "state")

    def torn(_state, path):
        Path(path).write_bytes(b"half")
        raise KilledError

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KilledError):
        save_state({"step": 2}, tmp_path / "state")
    assert torch.load(tmp_path / "state", weights_only=True) == {"step": 1}


def test_psnr_of_a_perfect_and_of_a_known_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "round_trip", lambda _vae, picture: np.clip(picture.astype(int) + 1, 0, 255))
    gray = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(TAESD(), [gray, gray]) == pytest.approx(20 * np.log10(255))
