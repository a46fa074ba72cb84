"""What a run takes in memory, and what it says when there is not enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import pytest
import torch
from blocklora.blocklora_core.host.train.memory import (
    MemoryMeter,
    MemorySettings,
    TrainingMemoryError,
    is_out_of_memory,
    memory_advice,
    model_bytes,
)
from blocklora.blocklora_core.host.train.port import ComfyPort
from blocklora.blocklora_core.training import TrainConfig
from blocklora.blocklora_core.training.optimisation.learner import Learner
from blocklora.blocklora_core.training.optimisation.optimizers import Group
from torch import nn

from tests.host.test_runs import train
from tests.host.tiny import Base

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
    assert [path.name for path in (folders / "models").rglob("*.safetensors")] == ["ada_step2.safetensors"]
    assert train(base, batch_size=2).resumed == 2


def test_only_levers_that_help_are_named() -> None:
    done = MemorySettings(True, 1, 0, torch.bfloat16, "attention")
    assert done.remedies() == ["lower resolution (now 0, which leaves every picture its size)"]
    wide = MemorySettings(True, 1, 512, torch.bfloat16, "attention + feed-forward")
    assert wide.remedies()[-1] == "set layers to attention (now attention + feed-forward)"


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
