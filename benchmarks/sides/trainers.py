"""The sides of the training benchmark: ComfyUI's trainer, ours, and the frozen model. Import after `import_comfyui`.

Every side trains on the same four random pictures. All but our default configuration take the same random text features
and hold no text encoder in memory. Set-up, a model load among it, is done anew in each turn and not timed: a turn's
seconds are those of its optimiser steps alone, from the draw of the batch to the end of the update.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import mock

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import comfy_extras.nodes_train as stock_module
import torch

from benchmarks.common.models import TextFeatures, build_clip
from benchmarks.common.shared import Stopwatch
from blocklora_core.concept.concept import Concept
from blocklora_core.host.train.port import ComfyPort, training_port
from blocklora_core.host.weights.autograd import training_mode
from blocklora_core.training import Conditioning, Dataset, Example, TrainConfig, Trainer
from blocklora_core.training.port import Prompt
from blocklora_core.training.regularisers.erasure import Erasure

PICTURES, RANK = 4, 4
LATENT = (4, 16, 16)
"""Of a 128 px picture."""
ERASED = 0.3


@dataclass(frozen=True)
class Setting:
    """One line of the result. precision: a key of PRECISIONS, in which the base is held and every side computes."""

    precision: str
    batch: int
    checkpointing: bool

    @property
    def name(self) -> str:
        return f"{self.precision} batch {self.batch} checkpointing {'on' if self.checkpointing else 'off'}"


class _Bar(comfy.utils.ProgressBar):
    """The built-in trainer makes its bar right before its loop and moves it right after each update."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.seconds: list[float] = []
        self.watch = Stopwatch()
        Sides.bars.append(self)

    def update(self, value: int) -> None:
        self.seconds.append(self.watch.seconds())
        self.watch = Stopwatch()
        super().update(value)


class _TimedTrainer(Trainer):
    """The trainer as it is, with a watch on each step."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.seconds: list[float] = []

    def _step(self) -> None:
        watch = Stopwatch()
        super()._step()
        self.seconds.append(watch.seconds())


def _added() -> dict[str, Any]:
    """The arguments that the built-in trainer of newer hosts takes besides, as they stand in its node."""
    standing = {
        "quantized_backward": False, "checkpoint_depth": 1, "offloading": False, "bucket_mode": False,
        "bypass_mode": False,
    }  # fmt: skip
    taken = inspect.signature(stock_module.TrainLoraNode.execute).parameters
    return {name: value for name, value in standing.items() if name in taken}


class _EnoughError(Exception):
    """Ends a training before it collects Grams, which the built-in trainer has not."""


@contextmanager
def _restricted_to(keys: Collection[str] | None) -> Iterator[None]:
    """The built-in trainer adapts the weights `keys` alone: its other adapters are made and never attached."""
    attach = comfy.model_patcher.ModelPatcher.add_weight_wrapper

    def add(patcher: Any, key: str, wrapper: Any) -> None:
        if keys is None or key in keys:
            attach(patcher, key, wrapper)

    with mock.patch.object(comfy.model_patcher.ModelPatcher, "add_weight_wrapper", add):
        yield


class Sides:
    """One model and what each side does with it in a turn of so many steps; every side returns seconds per step."""

    bars: list[_Bar] = []  # noqa: RUF012  (the built-in trainer keeps its bar to itself)

    def __init__(self, build: Callable[[], Any], context: int):
        random = torch.Generator().manual_seed(0)
        self.model = build()
        # Where newer hosts' trainer gets a model of its own from: their loaders say how theirs was made.
        self.model.cached_patcher_init = (lambda **_: build(), ())
        self.latents = torch.randn(PICTURES, *LATENT, generator=random)
        self.features = torch.randn(1, 77, context, generator=random)

    def stock(self, setting: Setting, steps: int, keys: Collection[str] | None = None) -> list[float]:
        """TrainLoraNode's own `execute`; with `keys` it adapts those weights alone. Its LoRA is in `precision`, too."""
        chosen = {
            "batch_size": setting.batch, "steps": steps, "grad_accumulation_steps": 1, "learning_rate": 1e-4,
            "rank": RANK, "optimizer": "AdamW", "loss_function": "MSE", "seed": 0,
            "training_dtype": setting.precision, "lora_dtype": setting.precision, "algorithm": "LoRA",
            "gradient_checkpointing": setting.checkpointing, "existing_lora": "[None]",
        } | _added()  # fmt: skip
        with (
            _restricted_to(keys),
            mock.patch.object(stock_module, "ProgressBar", _Bar),
            mock.patch.object(comfy.utils, "PROGRESS_BAR_ENABLED", False),
            warnings.catch_warnings(),
        ):
            # It asks for autocast to float32, which torch has not and says so.
            warnings.simplefilter("ignore")
            stock_module.TrainLoraNode.execute(
                model=[self.model],
                latents=[{"samples": latent[None].clone()} for latent in self.latents],
                positive=[[[self.features.clone(), {}]] for _ in self.latents],
                **{name: [value] for name, value in chosen.items()},
            )
        comfy.model_management.unload_all_models()
        return self.bars.pop().seconds

    @cached_property
    def clip(self) -> Any:
        """A text encoder of SD1.5's shape."""
        return build_clip()

    @contextmanager
    def _port(self, setting: Setting, clip: Any = None) -> Iterator[ComfyPort]:
        clip = clip or TextFeatures(self.features)
        with (
            training_mode(),
            training_port(self.model, clip, "attention", setting.precision, setting.checkpointing) as port,
        ):
            modules = self.model.model.modules()
            assert not any(getattr(part, "weight_function", ()) for part in modules), "the built-in trainer's are gone"
            yield port
        comfy.model_management.unload_all_models()

    def keys(self, setting: Setting) -> set[str]:
        """The weights that ours adapts, as the built-in trainer calls them."""
        with self._port(setting) as port:
            adapted = {layer.module for layer in port.layers.values()}
            return {f"{name}.weight" for name, module in self.model.model.named_modules() if module in adapted}

    def ours_and_floor(self, setting: Setting, steps: int, floor: bool = True) -> dict[str, list[float]]:
        """Both in one loan of the model, which is made ready for the precision only once."""
        # With erasure, and as the built-in one without a second batch and with frozen text.
        bare = TrainConfig.of(
            steps=steps, batch_size=setting.batch, rank=RANK, learning_rate=1e-4, erasure=Erasure(ERASED),
            niche_weight=0.0, embedding_share=0.0, token="none", preview_every=0,
        )  # fmt: skip
        with self._port(setting) as port:
            seconds = {"ours": self._trained(port, bare)}
            return seconds | ({"floor": self._floor(port, setting, steps)} if floor else {})

    def ours_default(self, setting: Setting, steps: int) -> list[float]:
        """Our trainer as Train's defaults have it: niche regularisation on a second batch, a quarter of the first but
        at least one picture, and a token that learns through the text encoder."""
        with self._port(setting, self.clip) as port:
            return self._trained(port, TrainConfig.of(steps=steps, batch_size=setting.batch, preview_every=0))

    def _trained(self, port: ComfyPort, config: TrainConfig) -> list[float]:
        dataset = Dataset([Example(latent, "a <c0>") for latent in self.latents], config.batch_size)
        trainer = _TimedTrainer(port, dataset, Concept("<c0>", "person"), config)

        def report(progress: Any) -> None:
            if progress.step == config.steps:
                raise _EnoughError

        with suppress(_EnoughError):
            trainer.run(report)
        return trainer.seconds

    def _floor(self, port: ComfyPort, setting: Setting, steps: int) -> list[float]:
        """Forward and backward of the frozen model, from the output of the first adapted layer on.

        No training of these layers by backpropagation can do less: gradients pass through every activation after that
        layer, and no weight gets one. With checkpointing the blocks are computed twice, as they are on every side.
        """
        latents = self.latents[: setting.batch].clone()
        sigma = port.sigmas[torch.full((setting.batch,), len(port.sigmas) // 2)].to(latents)
        text = Conditioning((Prompt(self.features.clone()),) * setting.batch)
        first = next(iter(port.layers.values())).module
        handle = first.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_())
        seconds = []
        try:
            for _ in range(steps):
                watch = Stopwatch()
                (port.predict(latents, sigma, text) - latents).square().mean().backward()
                seconds.append(watch.seconds())
        finally:
            handle.remove()
        return seconds
