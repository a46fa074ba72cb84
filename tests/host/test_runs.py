"""Runs broken off, taken up again, finished and asked for once more, on a real, tiny base."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host.train import runs
from blocklora.blocklora_core.host.train.progress import NodeProgress
from blocklora.blocklora_core.host.train.train import TrainJob, TrainResult, train_concept
from blocklora.blocklora_core.training import Trainer, grams, objective
from blocklora.blocklora_core.training.data.captions import CaptionRules
from blocklora.blocklora_core.training.loop import NonFiniteLossError
from blocklora.blocklora_core.training.regularisers.erasure import Erasure

from tests.host.test_training import CONFIG, SLOT, pictures, progress_hook
from tests.host.tiny import Base

Interrupt = comfy.model_management.InterruptProcessingException
PLAIN = {"niche_weight": 0.0, "steps": 4}
EVERYTHING = {
    "steps": 6,
    "accumulation": 2,
    "ema_decay": 0.9,
    "erasure": Erasure(0.3, per_sample=True),
    "embedding_share": 0.5,
    "scheduler": "cosine",
    "warmup_steps": 2,
    "max_grad_norm": 0.5,
    "weighting": "min_snr",
    "preview_every": 2,
    "sample_prompt": "<ada> in a hat",
    "captions": CaptionRules(dropout=0.2, shuffle=True, template="person"),
    "niche_weight": 1.0,
    "niche_share": 0.5,
}

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture(autouse=True)
def _nothing_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_unwritten", {})


def train(base: Base, resume: bool = True, again: bool = False, pictures_: Any = None, **changes: Any) -> TrainResult:
    job = TrainJob(
        Concept("<ada>", "person"), pictures_ or pictures(), ("a person, red, blue",),
        CONFIG.changed(**{**PLAIN, **changes}), SLOT, precision="fp32", resume=resume, again=again,
    )  # fmt: skip
    with torch.inference_mode():
        return train_concept(base.model, base.clip, base.vae, job)


def cancel(base: Base, step: int, **changes: Any) -> None:
    """Press ComfyUI's cancel button at `step`; the next layer that is computed, or the bar, raises."""

    def press(value: int, *_rest: Any, **_more: Any) -> None:
        comfy.model_management.interrupt_current_processing(value == step)

    try:
        with progress_hook(press), pytest.raises(Interrupt):
            train(base, **changes)
    finally:
        comfy.model_management.interrupt_current_processing(False)


def data(path: Path, result: TrainResult) -> bytes:
    return save(path, result.lora, dtype=torch.float32, overwrite=True).read_bytes()


def left(folders: Path, pattern: str) -> list[Path]:
    return sorted((folders / "user" / "blocklora" / "runs").glob(pattern))


@pytest.fixture
def steps_made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    made: list[int] = []
    step = Trainer._step

    def watch(self: Trainer) -> None:
        step(self)
        made.append(len(self.losses))

    monkeypatch.setattr(Trainer, "_step", watch)
    return made


@pytest.mark.parametrize("changes", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_cancelled_at_half_and_resumed_ends_byte_for_byte_the_same(
    base: Base, folders: Path, steps_made: list[int], changes: dict[str, Any]
) -> None:
    total, half = changes["steps"], changes["steps"] // 2
    whole = train(base, **changes)
    cancel(base, half, **changes, again=True)
    assert len(left(folders, "*.state")) == 1
    steps_made.clear()
    result = train(base, **changes, again=True)
    assert steps_made == list(range(half + 1, total + 1)) and result.resumed == half
    assert data(folders / "a.safetensors", result) == data(folders / "b.safetensors", whole)
    assert result.losses == whole.losses and result.niche_losses == whole.niche_losses
    assert not left(folders, "*.state")


def test_a_cancel_while_grams_are_collected_costs_no_step(base: Base, steps_made: list[int]) -> None:
    cancel(base, PLAIN["steps"])
    steps_made.clear()
    result = train(base)
    assert not steps_made and result.resumed == PLAIN["steps"] and result.lora.grams is not None


def test_the_last_step_is_kept_before_the_grams_are_collected(
    base: Base, folders: Path, steps_made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is killed, or told to end, while it collects them has lost no step."""
    kept: list[Path] = []

    def killed(*_args: Any, **_more: Any) -> None:
        kept.extend(left(folders, "*.state"))
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("blocklora.blocklora_core.training.loop.collect_grams", killed)
        with pytest.raises(SystemExit):
            train(base)
    assert len(kept) == 1
    steps_made.clear()
    assert train(base).resumed == PLAIN["steps"] and not steps_made


@pytest.mark.parametrize("change", [{"seed": 12}, {"learning_rate": 0.5}, {"steps": 5}, {"pictures_": "others"}])
def test_a_state_of_another_run_is_not_used(base: Base, change: dict[str, Any]) -> None:
    cancel(base, 2)
    if "pictures_" in change:
        change = {"pictures_": [picture * 0.9 for picture in pictures()]}
    assert train(base, **change).resumed == 0


def test_what_is_only_shown_or_saved_does_not_stop_a_run_from_going_on(base: Base) -> None:
    cancel(base, 2)
    assert train(base, preview_every=3, save_every=2).resumed == 2


def test_resume_off_starts_anew(base: Base, steps_made: list[int]) -> None:
    cancel(base, 2)
    steps_made.clear()
    assert train(base, resume=False).resumed == 0 and steps_made == [1, 2, 3, 4]


def test_a_damaged_state_is_trained_anew(base: Base, folders: Path) -> None:
    whole = train(base)
    cancel(base, 2, again=True)
    (state,) = left(folders, "*.state")
    # The header is sound, what it names is not there.
    state.write_bytes(state.read_bytes().replace(b"generator", b"generatos"))
    result = train(base, again=True)
    assert result.resumed == 0 and data(folders / "a.safetensors", result) == data(folders / "b.safetensors", whole)


def test_identical_inputs_are_not_trained_again(base: Base, folders: Path, steps_made: list[int]) -> None:
    first = train(base, preview_every=2)
    steps_made.clear()
    second = train(base, preview_every=2)
    assert not steps_made and second.kept and not first.kept
    assert (second.losses, second.niche_losses) == (first.losses, first.niche_losses)
    assert (second.layers, second.pictures) == (first.layers, first.pictures)
    assert second.samples[0].tobytes() == first.samples[-1].tobytes()
    for dtype in (torch.float16, torch.float32):
        files = [save(folders / f"{at}.safetensors", run.lora, dtype=dtype, overwrite=True)
                 for at, run in enumerate((first, second))]  # fmt: skip
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("change", [{"seed": 12}, {"again": True}, {"weight_decay": 0.02}])
def test_other_inputs_are_trained(base: Base, steps_made: list[int], change: dict[str, Any]) -> None:
    train(base)
    steps_made.clear()
    assert not train(base, **change).kept and len(steps_made) == PLAIN["steps"]


def test_another_model_is_another_run(base: Base, steps_made: list[int]) -> None:
    train(base)
    name = "diffusion_model.out.2.weight"
    patched = base.model.clone()
    # A layer that is not adapted: the base is more than what a run learns on.
    patched.add_patches({name: ("diff", (torch.ones(base.model.model.state_dict()[name].shape),))}, 0.01)
    steps_made.clear()
    assert not train(dataclasses.replace(base, model=patched)).kept and steps_made


def test_what_checkpoints_leave_out_of_a_text_encoder_is_no_part_of_a_run(base: Base, steps_made: list[int]) -> None:
    """Another server has other numbers in it, whatever the memory held."""
    train(base)
    steps_made.clear()
    projection = base.clip.cond_stage_model.clip_l.transformer.text_projection.weight
    before = projection.detach().clone()
    try:
        with torch.inference_mode():
            projection.add_(1.0)
        assert train(base).kept and not steps_made
    finally:
        with torch.inference_mode():
            projection.copy_(before)


def test_a_kept_result_that_cannot_be_read_is_trained_anew(base: Base, folders: Path, steps_made: list[int]) -> None:
    train(base)
    for pattern in ("*.safetensors", "*.record"):
        (path,) = left(folders, pattern)
        whole, files = path.read_bytes(), runs.RunFiles(path.stem, {})
        for damaged in (whole[: len(whole) // 2], b"", b"x" * len(whole), whole.replace(b"losses", b"lasses")):
            path.write_bytes(damaged)
            if damaged != whole:
                assert files.finished() is None
        path.unlink()
        assert files.finished() is None
        path.write_bytes(whole)
        assert files.finished() is not None
    path.write_bytes(b"")
    steps_made.clear()
    assert not train(base).kept and steps_made


def test_only_so_many_results_are_kept(base: Base, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT_RESULTS", 2)
    for seed in (1, 2, 3):
        train(base, seed=seed, steps=1)
    assert len(left(folders, "*.safetensors")) == len(left(folders, "*.record")) == 2
    assert train(base, seed=3, steps=1).kept


def test_only_so_many_states_are_kept_but_those_of_the_last_day(
    base: Base, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster may have more workers on one folder than states are kept, and go on from any of them."""
    monkeypatch.setattr(runs, "KEPT_STATES", 2)
    for seed in (1, 2, 3):
        cancel(base, 2, seed=seed)
    states = left(folders, "*.state")
    assert len(states) == 3
    for path in states:
        os.utime(path, (0, 0))
    cancel(base, 2, seed=4)
    assert len(left(folders, "*.state")) == 2


def test_every_n_steps_a_lora_and_the_state_are_saved(
    base: Base, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    keep = runs.RunFiles.keep_state

    def watch(self: runs.RunFiles, trainer: Trainer) -> None:
        keep(self, trainer)
        saved.append(len(trainer.losses))

    monkeypatch.setattr(runs.RunFiles, "keep_state", watch)
    result = train(base, steps=6, save_every=2)
    assert saved == [2, 4, 6] and not left(folders, "*.state")  # the last before the Grams
    names = [path.name for path in result.snapshots]
    assert names == ["ada_step2.safetensors", "ada_step4.safetensors"]
    assert [load(path).training["steps_done"] for path in result.snapshots] == [2, 4]


def test_a_full_disk_does_not_end_the_training(
    base: Base, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_args: Any, **_more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_atomic", full)
    monkeypatch.setattr(runs, "write_lora", full)
    result = train(base, save_every=2)
    assert len(result.losses) == PLAIN["steps"] and not result.snapshots
    assert "the state of the training could not be saved" in caplog.text
    assert "the finished training could not be saved" in caplog.text


def test_a_loss_that_is_no_number_leaves_the_last_good_state(
    base: Base, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(base)
    losses = objective.term_losses
    calls: list[int] = []

    def poison(*args: Any) -> Any:
        calls.append(1)
        (first, *others), passes = losses(*args)
        return [first * float("nan") if len(calls) == 3 else first, *others], passes

    with monkeypatch.context() as patch:
        patch.setattr(objective, "term_losses", poison)
        with pytest.raises(NonFiniteLossError):
            train(base, again=True)
    result = train(base, again=True)
    assert result.resumed == 2
    assert data(folders / "a.safetensors", result) == data(folders / "b.safetensors", whole)


def test_an_error_within_the_optimiser_leaves_no_half_made_state(
    base: Base, folders: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = torch.optim.AdamW.step

    def half(self: torch.optim.AdamW, *args: Any) -> None:
        original(self, *args)
        if half.calls == 2:  # type: ignore[attr-defined]
            raise RuntimeError("half made")
        half.calls += 1  # type: ignore[attr-defined]

    half.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.optim.AdamW, "step", half)
    with pytest.raises(RuntimeError, match="half made"):
        train(base)
    assert not left(folders, "*.state") and "the state of the training could not be saved" in caplog.text


class _OddError(BaseException):
    """Of a kind that nobody thought of."""


@pytest.mark.parametrize(
    "error", [TypeError("odd"), KeyError("odd"), AssertionError("odd"), KeyboardInterrupt(), _OddError()]
)
def test_whatever_ends_a_run_what_was_learnt_is_saved_first(
    base: Base, folders: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_progress: NodeProgress, state: Any) -> None:
        if state.step == 2:
            raise error

    monkeypatch.setattr(NodeProgress, "__call__", fail)
    with pytest.raises(type(error)):
        train(base)
    (kept,) = (folders / "user" / "blocklora" / "interrupted").glob("*.safetensors")
    assert load(kept).training["steps_done"] == 2 and len(list(runs.runs_folder().glob("*.state"))) == 1


def test_without_memory_for_the_grams_the_training_is_kept_and_they_can_be_had_later(
    base: Base, monkeypatch: pytest.MonkeyPatch, steps_made: list[int]
) -> None:
    def full(*_args: Any, **_named: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 900.00 MiB")

    whole = train(base, again=True)
    with monkeypatch.context() as patch:
        patch.setattr(grams, "GramAccumulator", full)
        bare = train(base, again=True)
    assert bare.lora.grams is None and "Collect Grams" in bare.note and not whole.note
    assert all(torch.equal(layer.up, bare.lora.layers[name].up) for name, layer in whole.lora.layers.items())
    made = len(steps_made)
    later = train(base, again=True)
    assert len(steps_made) == made and later.lora.grams is not None and not later.note
