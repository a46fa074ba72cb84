"""What a run takes in memory, and what it says when there is not enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import pytest
import torch
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.host.train.memory import (
    MemoryEstimate,
    MemoryMeter,
    MemorySettings,
    TrainingMemoryError,
    estimate,
    is_out_of_memory,
    memory_advice,
    model_bytes,
)
from blocklora.blocklora_core.host.train.port import ComfyPort
from blocklora.blocklora_core.host.train.train import TrainJob, TrainResult, train_concept
from blocklora.blocklora_core.host.weights.autograd import training_mode
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.training import Dataset, Example, TrainConfig, Trainer
from blocklora.blocklora_core.training.optimisation.learner import Learner
from blocklora.blocklora_core.training.optimisation.optimizers import Group
from torch import nn

from tests.host.architectures import build, latents_of
from tests.host.dynamic import WANTED, equal
from tests.host.encoders import encoder_of
from tests.host.test_runs import CONFIG, pictures, progress_hook, train
from tests.host.tiny import Base, make_lora, same

CPU = torch.device("cpu")


def cuda_error() -> Exception:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


def cpu_error() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ...")


@pytest.mark.parametrize("error", [cuda_error, cpu_error, MemoryError])
def test_no_memory_names_the_levers_and_keeps_what_was_learnt(
    base: Base, folders: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
) -> None:
    calls: list[int] = []
    predict = ComfyPort.predict

    def fail(self: ComfyPort, *args: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise error()
        return predict(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ComfyPort, "predict", fail)
        with pytest.raises(TrainingMemoryError) as raised:
            train(base, batch_size=2)
    text = str(raised.value)
    order = [text.index(word) for word in ("checkpointing on", "batch_size (now 2", "resolution (now 512)", "bf16")]
    assert order == sorted(order) and "layers" not in text and "\n" not in text
    # ComfyUI unloads its models on this class of error.
    assert isinstance(raised.value, comfy.model_management.OOM_EXCEPTION)
    (kept,) = folders.rglob("*.safetensors")
    assert kept.name.startswith("ada_step2.")
    assert train(base, batch_size=2).resumed == 2


def test_only_levers_that_help_are_named() -> None:
    done = MemorySettings(True, 1, 0, torch.bfloat16, "attention")
    assert done.remedies() == ["lower resolution (now 0, which leaves every picture its size)"]
    wide = MemorySettings(True, 1, 512, torch.bfloat16, "attention + feed-forward")
    assert wide.remedies()[-1] == "set layers to attention (now attention + feed-forward)"


@pytest.mark.parametrize(("room", "dtype", "told"), [(2, "float32", True), (50, "float32", False), (1, "fp8", False)])
def test_a_base_that_fills_the_device_is_the_first_lever(
    monkeypatch: pytest.MonkeyPatch, room: int, dtype: str, told: bool
) -> None:
    """Tiny Flux has about 3 MB in float32."""
    model = build("flux", torch.float8_e4m3fn if dtype == "fp8" else torch.float32)
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda _device: room * 1e6)
    remedies = MemorySettings(False, 1, 512, torch.bfloat16, "attention", model).remedies()
    assert (remedies[0] == "load the base in fp8 (its weights are float32)") is told


def test_other_errors_pass_as_they_are() -> None:
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(ValueError())
    with (
        pytest.raises(RuntimeError, match=r"^shapes differ$"),
        memory_advice(MemorySettings(True, 1, 0, torch.float32, "all")),
    ):
        raise RuntimeError("shapes differ")


def test_the_report_adds_up_models_learnt_and_activations(base: Base) -> None:
    use = train(base).memory
    assert use is not None and use.device == "cpu" and not use.measured
    assert use.model == model_bytes([base.model, base.clip.patcher], CPU)
    assert use.activations > 0 and use.learnt > 0
    assert use.total == use.model + use.learnt + use.activations
    assert f"{use.total / 1024**3:.2f} GiB" in str(use)


def test_bytes_are_counted_exactly() -> None:
    frozen, weight = nn.Linear(16, 16, bias=False), nn.Parameter(torch.randn(16, 16))
    learner = Learner([Group([weight], 1e-3)], TrainConfig.of(ema_decay=0.9))
    x = torch.randn(4, 16)
    meter = MemoryMeter(CPU, [SimpleNamespace(model=frozen)])
    with meter:
        for _ in range(2):
            hidden = x @ weight
            # Kept for the backward pass: x, tanh's output and the frozen weight, which is counted as model.
            frozen(torch.tanh(hidden)).sum().backward()
        learner.step(0)
        use = meter.read(learner)
    assert use.model == 16 * 16 * 4
    # Weight, gradient, average, two moments and a step count.
    assert use.learnt == 5 * 16 * 16 * 4 + 4
    kept = [x, torch.empty(4, 16), weight, torch.empty(4, 16)]
    assert 2 * x.numel() * 4 <= use.activations <= sum(t.numel() * 4 for t in kept)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_peak_is_measured() -> None:
    device = torch.device("cuda")
    weight = nn.Parameter(torch.zeros(1024, 1024, device=device))
    learner = Learner([weight], [], TrainConfig())
    meter = MemoryMeter(device, [])
    with meter:
        ((torch.ones(1024, 1024, device=device) @ weight).sum()).backward()
        learner.step(0)
        use = meter.read(learner)
    assert use.measured and use.activations >= 2 * 1024 * 1024 * 4


class Evicting:
    """The VAE of a base on a full device: to decode, the host takes every other model away."""

    def __init__(self, vae: Any):
        self.vae, self.decoded = vae, 0

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(pixels)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.decoded += 1
        comfy.model_management.unload_all_models()
        return self.vae.decode(latents)


ROUNDED = pytest.mark.skipif(WANTED, reason="text patches are rounded anew with every page, and bf16 makes more of it")


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=ROUNDED)])
@pytest.mark.usefixtures("folders")
def test_a_preview_that_evicts_the_model_changes_nothing(base: Base, precision: str) -> None:
    """Patches of a merge leave the weights with it: what follows would learn on another model."""
    merged = apply_merge((make_lora(base, "<c1>", 1), make_lora(base, "<c2>", 2)), base.model, base.clip)
    changed = replace(base, model=merged.model, clip=merged.clip)
    evicting = Evicting(base.vae)
    settings = {"preview_every": 1, "preview_steps": 1, "precision": precision, "again": True}
    found = trained(replace(changed, vae=evicting), **settings)
    assert evicting.decoded == 3
    expected, plain = trained(changed, **settings), trained(base, **settings)
    assert found.losses == (pytest.approx(expected.losses, rel=1e-3) if WANTED else expected.losses)
    assert expected.losses != plain.losses
    for name, up in ups(expected).items():
        assert equal(up, ups(found)[name])


def trained(base: Base, precision: str, again: bool, **changes: Any) -> TrainResult:
    job = TrainJob(
        Concept("<ada>", "person"), pictures(), ("a person, red, blue",), CONFIG.changed(steps=3, **changes), 3,
        precision=precision, again=again, resume=False,
    )  # fmt: skip
    with torch.inference_mode():
        return train_concept(base.model, base.clip, base.vae, job)


def ups(result: TrainResult) -> dict[str, torch.Tensor]:
    return {name: layer.up for name, layer in result.lora.layers.items()}


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.usefixtures("folders")
def test_the_text_encoder_leaves_once_all_is_encoded(base: Base, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    def loaded() -> bool:
        held = comfy.model_management.current_loaded_models
        return any(one.model is not None and one.model.is_clone(base.clip.patcher) for one in held)

    def watch(*_args: Any, **_named: Any) -> None:
        seen.append(loaded())

    seen: list[bool] = []
    with progress_hook(watch):
        found = train(base, again=True, embedding_share=share, steps=4)
    learning = 2 if share else 0
    assert seen[:4] == [step < learning for step in range(4)]
    monkeypatch.setattr(ComfyPort, "release_text", lambda _self: None)
    assert same(ups(found), ups(train(base, again=True, embedding_share=share, steps=4)))


@pytest.mark.usefixtures("folders")
def test_memory_is_told_before_the_model_is_loaded(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    comfy.model_management.unload_all_models()
    network = base.model.model
    before = dict(network.named_parameters())
    seen: list[MemoryEstimate] = []

    def tell(port: ComfyPort, trainer: Trainer) -> MemoryEstimate:
        held = comfy.model_management.current_loaded_models
        assert not any(one.model is not None and one.model.is_clone(base.model) for one in held)
        states = trainer.generator.get_state(), torch.get_rng_state()
        seen.append(estimate(port, trainer))
        assert all(map(torch.equal, states, (trainer.generator.get_state(), torch.get_rng_state())))
        assert all(weight is before[name] for name, weight in network.named_parameters())
        assert not any(parameter.grad is not None for parameter in trainer.learner.parameters)
        return seen[-1]

    monkeypatch.setattr("blocklora.blocklora_core.host.train.memory.estimate", tell)
    use = train(base, again=True).memory
    assert use is not None and use.expected is seen[0]
    assert (
        use.expected.model == pytest.approx(use.model, rel=0.01 if WANTED else 0)
        and abs(use.expected.learnt - use.learnt) <= 0.02 * use.learnt
    )
    assert use.expected.activations is not None
    # At most in a step, against what is kept of it: more, by what is passing.
    assert 0.95 * use.activations <= use.expected.activations <= 2 * use.activations
    assert "before loading: about" in str(use)


@pytest.mark.parametrize("name", ["flux", "zimage", "qwen_image", "wan21", "sdxl", "sd35"])
def test_memory_is_told_of_other_architectures(name: str) -> None:
    with training_mode():
        port = ComfyPort(build(name), encoder_of(name), load=False)
        config = CONFIG.changed(slot=0, steps=1)
        dataset = Dataset([Example(torch.zeros(latents_of(name)), "a <ada>")], 1)
        told = estimate(port, Trainer(port, dataset, Concept("<ada>", "man"), config))
        wider = Dataset([Example(torch.zeros(*latents_of(name)[:-1], 4 * latents_of(name)[-1]), "a <ada>")], 1)
        more = estimate(port, Trainer(port, wider, Concept("<ada>", "man"), config))
    assert told.activations and more.activations and more.activations > told.activations
