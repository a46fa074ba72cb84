"""A run broken off and taken up again ends byte for byte where it would have ended."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

from blocklora_core.concept.concept import Concept
from blocklora_core.files.io import FileError, save
from blocklora_core.training import Dataset, Example, Progress, TrainConfig, Trainer
from blocklora_core.training.loop import NonFiniteLossError
from blocklora_core.training.regularisers.erasure import Erasure
from blocklora_core.training.state import KEY, StateMismatchError, load_state, run_inputs, run_key, save_state
from tests.core.fake_port import CHANNELS, SIDE, FakePort

HERO = Concept("<hero>", "man")
EVERYTHING = TrainConfig.of(
    steps=16,
    batch_size=3,
    rank=2,
    learning_rate=0.02,
    embedding_share=0.5,
    embedding_norm_limit=1e9,
    erasure=Erasure(0.3),
    niche_weight=1.0,
    niche_share=0.5,
    scheduler="cosine",
    warmup_steps=3,
    accumulation=2,
    max_grad_norm=0.5,
    ema_decay=0.9,
    weighting="min_snr",
    preview_every=0,
    gram_steps=3,
)


class StopError(Exception):
    """Ends a run from its callback."""


def trainer(config: TrainConfig = EVERYTHING, count: int = 7, seed: int = 7, caption: str = "picture") -> Trainer:
    random = torch.Generator().manual_seed(seed)
    examples = [
        Example(torch.randn(CHANNELS, SIDE, SIDE, generator=random) * 0.1 + 1, f"a <hero> {caption} {at % 4}")
        for at in range(count)
    ]
    return Trainer(FakePort(), Dataset(examples, config.batch_size), HERO, config)


def stop_at(step: int) -> Callable[[Progress], None]:
    def callback(progress: Progress) -> None:
        if progress.step == step:
            raise StopError

    return callback


def interrupted(config: TrainConfig, step: int, path: Path) -> Trainer:
    broken = trainer(config)
    with pytest.raises(StopError):
        broken.run(stop_at(step))
    save_state(path, broken, run_inputs(broken))
    return broken


def finished(path: Path, run: Trainer) -> bytes:
    run.run(lambda _: None)
    return save(path, run.result(), dtype=torch.float32).read_bytes()


def resumed(path: Path, config: TrainConfig = EVERYTHING) -> Trainer:
    fresh = trainer(config)
    load_state(path, fresh, run_inputs(fresh))
    return fresh


@pytest.mark.parametrize("step", [1, 7, 8, 9, 15, 16])
def test_resumed_run_ends_byte_for_byte_where_the_whole_one_ends(step: int, tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole.safetensors", trainer())
    broken = interrupted(EVERYTHING, step, tmp_path / "run.state")
    again = resumed(tmp_path / "run.state")
    assert len(again.losses) == step and again.losses == broken.losses
    assert again.prompts.frozen == broken.prompts.frozen == (step > 8)
    assert finished(tmp_path / "again.safetensors", again) == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "prodigy", "learning_rate": 1.0, "embedding_learning_rate": 1.0},
        {"optimizer": "schedulefree", "scheduler": "constant", "ema_decay": 0.0},
        {"erasure": Erasure(), "niche_weight": 0.0, "ema_decay": 0.0, "scheduler": "linear", "warmup_steps": 0},
    ],
    ids=["prodigy", "schedulefree", "plain"],
)
def test_every_optimizer_resumes_to_the_same_bytes(changes: dict[str, Any], tmp_path: Path) -> None:
    config = EVERYTHING.changed(**changes)
    if config.optimizer.name != "adamw":
        pytest.importorskip({"prodigy": "prodigyopt"}.get(config.optimizer.name, config.optimizer.name))
    whole = finished(tmp_path / "whole.safetensors", trainer(config))
    for step in (5, 10):
        interrupted(config, step, tmp_path / "run.state")
        assert finished(tmp_path / f"{step}.safetensors", resumed(tmp_path / "run.state", config)) == whole


def test_resumed_twice_and_previewed_is_still_the_same(tmp_path: Path) -> None:
    config = EVERYTHING.changed(preview_every=3, preview_steps=2)
    whole = finished(tmp_path / "whole.safetensors", trainer(config))
    interrupted(config, 4, tmp_path / "run.state")
    second = resumed(tmp_path / "run.state", config)
    with pytest.raises(StopError):
        second.run(stop_at(12))
    save_state(tmp_path / "run.state", second, run_inputs(second))
    assert finished(tmp_path / "again.safetensors", resumed(tmp_path / "run.state", config)) == whole


def test_an_error_within_a_step_leaves_the_state_of_the_step_before(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole.safetensors", trainer())
    broken = trainer()
    weight = broken.port.out.weight.data.clone()

    def poison(progress: Progress) -> None:
        if progress.step == 6:
            broken.port.out.weight.data.fill_(float("nan"))

    with pytest.raises(NonFiniteLossError):
        broken.run(poison)
    broken.port.out.weight.data.copy_(weight)
    save_state(tmp_path / "run.state", broken, run_inputs(broken))
    again = resumed(tmp_path / "run.state")
    assert len(again.losses) == 6
    assert finished(tmp_path / "again.safetensors", again) == whole


def test_the_same_state_gives_the_same_bytes_and_holds_no_pickle(tmp_path: Path) -> None:
    paths = [tmp_path / "a.state", tmp_path / "b.state"]
    for path in paths:
        interrupted(EVERYTHING, 4, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with safetensors.safe_open(paths[0], "pt") as file:
        assert json.loads(file.metadata()[KEY])["steps_done"] == 4


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: trainer(EVERYTHING.changed(steps=20)), r"steps \(saved 16, now 20\)"),
        (lambda: trainer(EVERYTHING.changed(erasure=Erasure(0.1))), "erasure"),
        (lambda: trainer(seed=8), "pictures"),
        (lambda: trainer(caption="other"), "captions"),
        (lambda: trainer(count=6), "pictures"),
    ],
)
def test_another_run_is_refused_by_name(other: Callable[[], Trainer], named: str, tmp_path: Path) -> None:
    first = interrupted(EVERYTHING, 4, tmp_path / "run.state")
    fresh = other()
    with pytest.raises(StateMismatchError, match=named):
        load_state(tmp_path / "run.state", fresh, run_inputs(fresh))
    assert not fresh.losses
    assert run_key(first.config, run_inputs(first)) != run_key(fresh.config, run_inputs(fresh))
    assert run_key(first.config, run_inputs(first)) == run_key(EVERYTHING, run_inputs(trainer()))


def test_masks_are_inputs_too() -> None:
    first, second = trainer(), trainer()
    mask = torch.ones(1, SIDE, SIDE)
    second.dataset.examples[0] = dataclasses.replace(second.dataset.examples[0], mask=mask)
    odd = {name for name, value in run_inputs(first).items() if run_inputs(second)[name] != value}
    assert odd == {"masks"}


def test_what_is_only_shown_or_saved_is_no_part_of_the_run() -> None:
    inputs = run_inputs(trainer())
    shown = EVERYTHING.changed(preview_every=2, preview_cfg=1.0, sample_prompt="a <hero>", save_every=5)
    assert run_key(shown, inputs) == run_key(EVERYTHING, inputs)
    assert run_key(shown.changed(seed=1), inputs) != run_key(EVERYTHING, inputs)


def test_an_error_within_the_optimiser_leaves_nothing_to_save(tmp_path: Path) -> None:
    broken = trainer()
    step = broken.learner.step

    def half(done: int) -> None:
        step(done)
        if done == 2:
            raise StopError

    broken.learner.step = half
    with pytest.raises(StopError):
        broken.run(lambda _: None)
    with pytest.raises(FileError, match="between two steps"):
        save_state(tmp_path / "run.state", broken, run_inputs(broken))


def test_another_base_is_told_by_its_weights() -> None:
    first, second = trainer(), trainer()
    second.port.k.weight.data.mul_(1.01)
    odd = {name for name, value in run_inputs(first).items() if run_inputs(second)[name] != value}
    assert odd == {"weights of the base"}


def test_damaged_or_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    broken = interrupted(EVERYTHING, 4, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FileError, match="truncated"):
        resumed(path)
    lora = save(tmp_path / "lora.safetensors", broken.result())
    with pytest.raises(FileError, match="expected a training state"):
        resumed(lora)


def test_weights_that_are_no_numbers_do_not_replace_a_good_state(tmp_path: Path) -> None:
    broken = interrupted(EVERYTHING, 4, tmp_path / "run.state")
    before = (tmp_path / "run.state").read_bytes()
    broken.learner.parameters[0].data.fill_(float("inf"))
    with pytest.raises(FileError, match="finite weights"):
        save_state(tmp_path / "run.state", broken, run_inputs(broken))
    assert (tmp_path / "run.state").read_bytes() == before


def test_a_run_that_has_not_started_has_no_state(tmp_path: Path) -> None:
    fresh = trainer()
    with pytest.raises(FileError, match="has started"):
        save_state(tmp_path / "run.state", fresh, run_inputs(fresh))
