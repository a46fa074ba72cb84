"""What one model takes, told without a weight of it: as Train tells it before it loads the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from benchmarks.common.concepts import make_gram
from benchmarks.common.models import CPU
from benchmarks.sizes.models import Sized
from blocklora_core.concept.concept import Concept
from blocklora_core.concept.gram import Gram, Grams
from blocklora_core.concept.gram_sketch import GramAccumulator
from blocklora_core.files.io import save
from blocklora_core.host.train.memory import MemoryEstimate, estimate
from blocklora_core.host.train.port import ComfyPort, training_port
from blocklora_core.host.weights.autograd import training_mode
from blocklora_core.host.weights.weightless import Live, weightless
from blocklora_core.training import Dataset, Example, TrainConfig, Trainer
from blocklora_core.training.grams import InputRecorder

RANK, NAME = 4, "<c0>"


@dataclass(frozen=True)
class Job:
    """dtype: the base is held in it. side: of the latents."""

    layers: str
    dtype: torch.dtype
    side: int
    checkpointing: bool = True


@contextmanager
def prepared(sized: Sized, job: Job, device: torch.device, load: bool) -> Iterator[Trainer]:
    """A trainer of one picture a step, with Train's defaults, but for a text side that is frozen."""
    with (
        training_mode(),
        training_port(
            sized.model(job.dtype, device), sized.clip(), job.layers, "bf16", job.checkpointing, load=load
        ) as port,
    ):
        dataset = Dataset([Example(torch.zeros(sized.shape(job.side)), f"a {NAME}")], 1)
        config = TrainConfig.of(
            steps=1, batch_size=1, rank=RANK, token="none", preview_every=0, gram_pictures=1, gram_steps=1, slot=0
        )
        yield Trainer(port, dataset, Concept(NAME, "person"), config)


def expected(sized: Sized, job: Job) -> tuple[MemoryEstimate, Trainer]:
    """What a training is told to take before it is loaded."""
    with prepared(sized, job, torch.device("meta"), load=False) as trainer:
        return estimate(trainer.port, trainer), trainer


@dataclass(frozen=True)
class Held:
    """Bytes of the sketches of all inputs, and at most while they become Grams."""

    held: int
    peak: int
    grams: Grams


def sketches(sized: Sized, layers: str) -> Held:
    """Of a collection in those layers of the model, which shares inputs as the model does."""
    with prepared(sized, Job(layers, torch.bfloat16, 16), torch.device("meta"), load=False) as trainer:
        widths, input_of = _inputs(trainer)
    each = {width: _of_width(width) for width in set(widths.values())}
    grams = Grams({key: each[width].gram for key, width in widths.items()}, input_of)
    held = sum(one.shared for one in each.values()) + sum(each[width].own for width in widths.values())
    left, peaks = held, []
    for width in sorted(widths.values()):  # As they become Grams.
        peaks.append(left + each[width].transient)
        left += each[width].gram_bytes - each[width].own
    return Held(held, max(peaks), grams)


@dataclass(frozen=True)
class _Width:
    """Bytes of one sketch of that width, of what all of them share, and of what making a Gram of it takes at most."""

    own: int
    shared: int
    transient: int
    gram: Gram

    @property
    def gram_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.gram.vectors, self.gram.values, self.gram.diagonal))


def _inputs(trainer: Trainer) -> tuple[dict[str, int], dict[str, str]]:
    """Width of every distinct input, and which input each layer reads."""
    port = trainer.port
    assert isinstance(port, ComfyPort)
    layers = {name: layer for name, layer in trainer.layers.items() if layer.convolution is None}
    recorder = InputRecorder(layers)
    (prompt,) = trainer.prompts.encode([f"a {NAME}"]).prompts
    conds = port.model_conds(torch.zeros(1, *trainer.dataset.shape), prompt)
    with weightless([port.model.model], port.device) as mode, recorder.attached(), torch.no_grad(), mode:
        port.predict_alike(torch.empty(1, *trainer.dataset.shape), torch.ones(1), [conds])
    widths = {key: total.size for key, total in recorder.totals.items()}
    return widths, dict(recorder.input_of)


@cache
def _of_width(width: int) -> _Width:
    random = torch.Generator().manual_seed(width)
    sketch = GramAccumulator(width)
    sketch.add(torch.randn(256, width, generator=random))
    shared = 0 if sketch.omega is None else sketch.omega.nbytes
    live = Live(CPU)
    with live:
        sketch.gram()
    return _Width(sketch.total.nbytes + sketch.diagonal.nbytes, shared, live.most, make_gram(width, random))


def file_bytes(trainer: Trainer, grams: Grams, folder: Path) -> tuple[int, int]:
    """Of a saved concept without Grams, and with them."""
    lora = trainer.result()
    return tuple(
        save(folder / "concept.safetensors", replace(lora, grams=one), overwrite=True).stat().st_size
        for one in (None, grams)
    )
