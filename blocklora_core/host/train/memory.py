"""How much memory a training run takes, told before and measured, and what to do when there is not enough."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...training import Trainer
from ...training.optimisation.learner import Learner
from ...training.quantised import is_quantised, stored
from ..comfy import ComfyModel
from ..compat import is_dynamic, loaded_dtype, total_memory
from ..weights.weightless import Live, weightless
from .port import ComfyPort

_GIB = 1024**3


_MOMENTS = 2
"""Numbers that AdamW keeps of each weight; other optimisers keep fewer."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a run will take on `device`, as MemoryUse has them.

    activations: beside weights, gradients and optimiser at most; None for models whose forward asks for numbers.
    """

    device: str
    model: int
    learnt: int
    activations: int | None

    @property
    def total(self) -> int:
        return self.model + self.learnt + (self.activations or 0)

    def __str__(self) -> str:
        activations = "that this model does not tell" if self.activations is None else _gib(self.activations)
        return (
            f"memory expected on {self.device} before loading: about {_gib(self.total)} = frozen models "
            f"{_gib(self.model)} + row block and its optimizer {_gib(self.learnt)} + activations {activations}"
        )


def load_told(port: ComfyPort, trainer: Trainer) -> MemoryEstimate:
    """Load the model of `port`, told before what a run of `trainer` will take; it draws no random number."""
    expected = estimate(port, trainer)
    room = total_memory(port.device)
    if expected.total > room:
        logging.warning("BlockLoRA: %s; the device has %s", expected, _gib(room))
    else:
        logging.info("BlockLoRA: %s", expected)
    port.load()
    return expected


def estimate(port: ComfyPort, trainer: Trainer) -> MemoryEstimate:
    """What a run of `trainer` will take, whose model need not be loaded: its step, made without numbers."""
    modules = [module for one in (port.model, port.clip.patcher) for module in one.model.modules()]
    frozen = {
        id(weight): _bytes_loaded(weight, loaded_dtype(module, name))
        for module in modules
        for name, weight in module.named_parameters(recurse=False)
    }
    learnt = sum(map(_bytes, trainer.learner.parameters)) * (2 + _MOMENTS + (trainer.learner.ema is not None))
    activations: int | None = None
    try:
        activations = _step_bytes(port, trainer)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  any code of any model runs there, and an estimate is no reason to fail
        logging.info("BlockLoRA: the activations of this model cannot be told before: %s", error)
    return MemoryEstimate(str(port.device), sum(frozen.values()), learnt, activations)


def _step_bytes(port: ComfyPort, trainer: Trainer) -> int:
    """The most that a forward and a backward pass take at a time, beside weights and their gradients."""
    config, captions, device = trainer.config, trainer.dataset.captions, port.device
    rows = config.batch_size + config.niche_pictures + config.prior_batch
    # The text encoder is there already: what it keeps for the token's gradient is measured.
    with Live(device) as text:
        encoded = trainer.prompts.encode(captions[: config.batch_size])
        kept = text.now
    # Before the numbers are gone, as some of what the host makes of a prompt is counted.
    conds = port.model_conds(torch.zeros(1, *trainer.dataset.shape, device=device), encoded.detach().prompts[0])
    adapters: list[nn.Module] = list(trainer.adapters.adapters.values())
    live = Live(device)
    with weightless([port.model.model, *adapters], device) as mode, trainer.adapters.attached(trainer.layers), mode:
        noisy, sigma = torch.empty(rows, *trainer.dataset.shape, device=device), torch.ones(rows, device=device)
        with live:
            port.predict_alike(noisy, sigma, [conds] * rows).square().mean().backward()
    return kept + live.most - sum(_bytes(weight) for adapter in adapters for weight in adapter.parameters())


@dataclass(frozen=True)
class MemoryUse:
    """Bytes on `device`. model: frozen weights. learnt: adapters, token, gradients, optimiser, averages.

    activations: what the first step took on top: on CUDA its measured peak, elsewhere what autograd kept for the
    backward pass, without what gradient checkpointing computes anew. expected: what was told before.
    """

    device: str
    model: int
    learnt: int
    activations: int
    measured: bool
    expected: MemoryEstimate | None = None

    @property
    def total(self) -> int:
        return self.model + self.learnt + self.activations

    def __str__(self) -> str:
        how = "peak of the first step" if self.measured else "kept for the backward pass of the first step"
        before = f"{self.expected}\n" if self.expected else ""
        return before + (
            f"memory on {self.device}: about {_gib(self.total)} = frozen models {_gib(self.model)} + row block and its "
            f"optimizer {_gib(self.learnt)} + activations {_gib(self.activations)} ({how})"
        )


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"


def _bytes(tensor: Tensor) -> int:
    return sum(part.numel() * part.element_size() for part in stored(tensor))


def _bytes_loaded(weight: Tensor, dtype: torch.dtype | None) -> int:
    return _bytes(weight) if dtype is None or is_quantised(weight) else weight.numel() * dtype.itemsize


def model_bytes(patchers: Sequence[ComfyModel], device: torch.device) -> int:
    """Of the weights that lie on `device`, tied ones once; of pages, those that are there now."""
    plain = [patcher for patcher in patchers if not is_dynamic(patcher)]
    weights = {id(weight): weight for patcher in plain for weight in patcher.model.parameters()}
    paged = sum(patcher.loaded_size() for patcher in patchers if is_dynamic(patcher))
    return paged + sum(_bytes(weight) for weight in weights.values() if weight.device.type == device.type)


def learnt_bytes(learner: Learner) -> int:
    """Of all that grows with the number of learnt weights, once the optimiser has made its first step."""
    weights = sum(map(_bytes, learner.parameters))
    averages = sum(map(_bytes, learner.ema.values)) if learner.ema else 0
    moments = sum(
        _bytes(value)
        for state in learner.optimizer.state.values()
        for value in state.values()
        if torch.is_tensor(value)
    )
    return 2 * weights + averages + moments


class MemoryMeter:
    """Measures one step: entered before it, `read` after it. Reads once; later calls give the same."""

    def __init__(self, device: torch.device, patchers: Sequence[ComfyModel], expected: MemoryEstimate | None = None):
        self.device, self.patchers, self.expected = device, patchers, expected
        self.use: MemoryUse | None = None
        self._stack = ExitStack()
        self._activations: Callable[[], int] = lambda: 0

    def __enter__(self) -> MemoryMeter:
        meter = _cuda_peak if self.device.type == "cuda" else _kept_for_backward
        self._activations = self._stack.enter_context(meter(self.device, [patcher.model for patcher in self.patchers]))
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def read(self, learner: Learner) -> MemoryUse:
        """The use of memory, the first step of `learner` done."""
        if self.use is None:
            self._stack.close()
            self.use = MemoryUse(
                str(self.device),
                model_bytes(self.patchers, self.device),
                learnt_bytes(learner),
                self._activations(),
                self.device.type == "cuda",
                self.expected,
            )
        return self.use


@contextmanager
def _cuda_peak(device: torch.device, _modules: Sequence[nn.Module]) -> Iterator[Callable[[], int]]:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield lambda: torch.cuda.max_memory_allocated(device) - before


@contextmanager
def _kept_for_backward(_device: torch.device, modules: Sequence[nn.Module]) -> Iterator[Callable[[], int]]:
    weights = {
        part.untyped_storage().data_ptr()
        for module in modules for parameter in module.parameters() for part in stored(parameter)
    }  # fmt: skip
    kept: dict[int, int] = {}
    backward = False

    def pack(tensor: Tensor) -> Tensor:
        # With the first backward pass memory is given back: what comes later takes its place.
        for storage in [] if backward else [part.untyped_storage() for part in stored(tensor)]:
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        nonlocal backward
        backward = True
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield lambda: sum(kept.values())


class TrainingMemoryError(torch.cuda.OutOfMemoryError):
    """Memory ran out; says which settings to change. ComfyUI unloads its models on the error that this derives from."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the GPU or of the machine ran out."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    # On the CPU torch has no class for it.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@dataclass(frozen=True)
class MemorySettings:
    """The settings of a run that memory hangs on."""

    checkpointing: bool
    batch_size: int
    resolution: int
    dtype: torch.dtype
    layers: str
    model: ComfyModel | None = None

    def remedies(self) -> list[str]:
        """What would help, the cheapest first."""
        size = f"now {self.resolution}" if self.resolution else "now 0, which leaves every picture its size"
        table = (
            (self._fills_the_device, f"load the base in fp8 (its weights are {self._format})"),
            (not self.checkpointing, "turn checkpointing on"),
            (self.batch_size > 1, f"lower batch_size (now {self.batch_size}; accumulation makes up for it)"),
            (True, f"lower resolution ({size})"),
            (self.dtype == torch.float32, "set precision to bf16 (now fp32)"),
            (self.layers != "attention", f"set layers to attention (now {self.layers})"),
        )
        return [remedy for helps, remedy in table if helps]

    @property
    def _format(self) -> str:
        kinds = Counter(str(weight.dtype) for weight in self._weights for _ in range(weight.ndim == 2))
        return max(kinds, key=kinds.__getitem__, default="").removeprefix("torch.")

    @property
    def _weights(self) -> list[Tensor]:
        return [] if self.model is None else list(self.model.model.parameters())

    @property
    def _fills_the_device(self) -> bool:
        """Weights of 16 bits or more that leave less than a third of the device: nothing else helps as much."""
        if self.model is None or "float8" in self._format or any(map(is_quantised, self._weights)):
            return False
        return sum(map(_bytes, self._weights)) > total_memory(self.model.load_device) * 2 / 3


@contextmanager
def memory_advice(settings: MemorySettings) -> Iterator[None]:
    """Turn an error for want of memory into a TrainingMemoryError that names what to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        steps = "; ".join(f"{number}. {remedy}" for number, remedy in enumerate(settings.remedies(), 1))
        said = str(error).partition("\n")[0]
        raise TrainingMemoryError(
            f"Training ran out of memory. Try in this order: {steps}. What was learnt, if anything, is in "
            f"blocklora/interrupted of ComfyUI's user folder. The device said: {said}"
        ) from error
