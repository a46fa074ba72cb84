"""The settings node, the Train node that takes it, and what the node shows while it trains."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.concept.rows import Scheme
from blocklora.blocklora_core.host.train.live.board import Run
from blocklora.blocklora_core.host.train.progress import NodeProgress
from blocklora.blocklora_core.host.train.train import TrainResult
from blocklora.blocklora_core.training import AS_SET, PRESETS, Progress, TrainConfig, TrainSettings
from blocklora.blocklora_core.training.data.captions import CaptionRules
from PIL import Image


def defaults(node: Any) -> dict[str, Any]:
    return {item.id: item.default for item in node.define_schema().inputs if getattr(item, "default", None) is not None}


def made(pack: ModuleType, **changes: Any) -> TrainSettings:
    node = pack.nodes.train.settings.BlockLoRATrainSettings
    settings: TrainSettings = node.execute(**{**defaults(node), **changes}).result[0]
    return settings


def test_untouched_settings_change_nothing(pack: ModuleType) -> None:
    settings = made(pack)
    assert not settings.fields and not settings.erasure
    assert settings.apply(TrainConfig.of(seed=3)) == TrainConfig.of(seed=3)


def test_every_setting_reaches_the_training(pack: ModuleType) -> None:
    fields = {
        "optimizer": "adamw8bit", "scheduler": "cosine_restarts", "warmup_steps": 5, "scheduler_cycles": 2,
        "accumulation": 3, "max_grad_norm": 1.0, "weight_decay": 0.1, "ema_decay": 0.99, "weighting": "min_snr",
        "snr_gamma": 4.0, "noise_offset": 0.05, "embedding_norm_limit": 1.0, "niche_share": 0.5, "niche_negatives": 6,
        "gram_pictures": 2, "gram_steps": 5, "sample_prompt": "<ada> at sea", "preview_steps": 6, "preview_cfg": 3.0,
        "save_every": 50, "niche_class_word": False, "text_learning_rate": 0.01, "prior_pictures": 4,
        "prior_weight": 2.0, "attention_weight": 0.01,
    }  # fmt: skip
    others = {"niche_captions": "a cat\n\n a dog ", "slots": 64}
    captions = {"caption_dropout": 0.1, "caption_shuffle": True, "caption_template": "object", "caption_emphasis": True}
    erasure = {"erasure_per_sample": True, "erasure_rescale": True}
    assert {*fields, *captions, *erasure, *others} == set(defaults(pack.nodes.train.settings.BlockLoRATrainSettings))
    settings = made(pack, **fields, **captions, **erasure, **others)
    config = settings.apply(TrainConfig.of(steps=100))
    flat = config.flat()
    assert {name: flat[name] for name in fields} == fields
    assert config.niche.captions == ("a cat", "a dog") and config.adapter.scheme == Scheme(slots=64)
    assert settings.apply(TrainConfig.of(steps=100, scheme=None, slot=None)).adapter.scheme is None
    assert config.captions == CaptionRules(0.1, True, "object", True)
    assert (config.erasure.per_sample, config.erasure.rescale) == (True, True)


def jobs_of(pack: ModuleType, monkeypatch: pytest.MonkeyPatch, *changes: dict[str, Any]) -> list[Any]:
    """What Train would be asked to do with each of the changes to its defaults."""
    module, jobs = pack.nodes.train.train, []

    def stop(*args: Any) -> TrainResult:
        jobs.append(args[-1])
        raise InterruptedError

    monkeypatch.setattr(module, "train_concept", stop)
    hidden = SimpleNamespace(unique_id="7", extra_pnginfo={"workflow": {"id": "w"}})
    monkeypatch.setattr(module.BlockLoRATrain, "hidden", hidden, raising=False)
    plain = {name: [value] for name, value in defaults(module.BlockLoRATrain).items()}
    given = {**plain, "model": [0], "clip": [0], "vae": [0], "images": [], "captions": ["a"]}
    for more in changes:
        with pytest.raises(InterruptedError):
            module.BlockLoRATrain.execute(**{**given, **more})
    return jobs


def test_train_takes_the_settings_and_its_own_switches(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"settings": [made(pack, save_every=7)], "resume": [False], "train_again": [True]}
    jobs = jobs_of(pack, monkeypatch, {}, more)
    assert [(job.config.save_every, job.resume, job.again) for job in jobs] == [(0, True, False), (7, False, True)]
    assert (jobs[0].node_id, jobs[0].workflow) == ("7", "w")


def test_a_preset_decides_how_much_work_and_train_settings_go_before_it(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = {"steps": [7], "rank": [2], "learning_rate": [0.5]}
    settings = {"settings": [made(pack, gram_pictures=3)]}
    changes = [{**by_hand, "preset": [name]} for name in PRESETS]
    set_, quick, standard, careful, last = (
        job.config for job in jobs_of(pack, monkeypatch, *changes, {**by_hand, **settings, "preset": ["quick"]})
    )
    assert (set_.steps, quick.steps, standard.steps, careful.steps) == (7, 120, TrainConfig().steps, 800)
    assert {config.adapter.rank for config in (set_, quick, careful)} == {2} and quick.optimizer.learning_rate == 0.5
    assert standard.changed(rank=4, learning_rate=1e-3, slot=0) == TrainConfig()
    assert (quick.grams.pictures, last.grams.pictures, last.steps) == (2, 3, 120)
    assert list(PRESETS) == [AS_SET, "quick", "standard", "careful"]


def progress_of(step: int, sample: bool) -> Progress:
    losses = [1.0 / (at + 1) for at in range(step)]
    return Progress(step, 40, losses[-1], 0.0, losses, torch.zeros(1, 4, 8, 8) if sample else None)


def test_the_live_picture_shows_the_curve_and_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    shades = iter([0.1, 0.5, 0.9])
    shown: list[Any] = []
    progress = NodeProgress(
        "7", Run("id", "7", "", "<ada>", "person", 40), lambda _latents: torch.full((1, 32, 16, 3), next(shades))
    )
    # The bar itself may be slow to tell: newer hosts throttle it.
    monkeypatch.setattr(progress.bar, "update_absolute", lambda *args: shown.append(args))
    for step, sample in ((10, True), (20, True), (30, True), (35, False), (40, False)):
        progress(progress_of(step, sample))
    assert [step for step, *_ in shown] == [10, 20, 30, 35, 40] and shown[3][2] is None
    kind, picture, size = shown[-1][2]
    assert kind == "JPEG" and size >= picture.width
    # The curve's line, the latest sample beside it in its own shape, the two before it below.
    assert (38, 110, 220) in {colour for _, colour in picture.crop((0, 0, 480, 240)).getcolors(1 << 20)}
    assert picture.getpixel((600, 120)) == (230, 230, 230) and picture.getpixel((500, 120)) == (252, 252, 253)
    assert picture.getpixel((60, 300)) == (26, 26, 26) and picture.getpixel((180, 300)) == (128, 128, 128)


def test_the_node_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str]] = []
    server = ModuleType("server")
    instance = SimpleNamespace(send_progress_text=lambda text, node: said.append((node, text)))
    server.PromptServer = SimpleNamespace(instance=instance)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "server", server)
    progress = NodeProgress("7", Run("id", "7", "", "<ada>", "person", 40), lambda _latents: torch.zeros(1, 8, 8, 3))
    monkeypatch.setattr(progress.bar, "hook", None)
    for step in (1, 2):
        progress(progress_of(step, False))
    assert said[0] == ("7", "step 1 of 40, loss 1.0000")
    assert said[1][1].startswith("step 2 of 40, loss 0.5000, 0.00 s a step, 0 s left")


def test_a_long_strip_keeps_the_first_and_the_last_sample() -> None:
    from blocklora.blocklora_core.reports.curves import spread

    samples = [Image.new("L", (1, 1), at) for at in range(20)]
    chosen = [sample.getpixel((0, 0)) for sample in spread(samples, 6)]
    assert len(chosen) == 6 and chosen[0] == 0 and chosen[-1] == 19 and chosen == sorted(set(chosen))
