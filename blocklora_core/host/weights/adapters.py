"""LoHa, LoKr, DoRA, OFT, GLoRA and whole differences on a model, by ComfyUI's own adapters.

ComfyUI leaves out what does not fit, with a line in the log at most. Here that is told, and a layer that it would apply
in part is an error.
"""

from __future__ import annotations

from collections import UserDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import comfy.lora
import torch
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ...concept.adapters import Adapter
from ...concept.concept import BlockLoRA
from ...concept.layer import Layer, ShapeError
from .names import Fit, Weights
from .row_blocks import RowBlocksAdapter

Step = tuple[float, Any, float, Any, Any]
"""ComfyUI's own form of a patch: strength, value, factor on the weight, rows (dim, start, length), function."""


@dataclass(frozen=True, eq=False)
class WeightPatch(Adapter):
    """An adapter of one of a model's weights. steps: what ComfyUI made of its tensors; shape: the weight's."""

    steps: tuple[Step, ...] = ()
    shape: tuple[int, ...] = ()

    def at_strength(self) -> tuple[Step, ...]:
        """The steps at this patch's strength."""
        return tuple(
            (self.strength * own, value, factor, rows, change) for own, value, factor, rows, change in self.steps
        )


class ChainAdapter(WeightAdapterBase):
    """ComfyUI's patch of one weight by several patches, one after the other: one call to add_patches takes them all."""

    name = "chain"

    def __init__(self, loaded_keys: set[str], weights: Sequence[Step]):
        # The host makes copies with this constructor, from these two attributes.
        self.loaded_keys, self.weights = loaded_keys, tuple(weights)

    def calculate_shape(self, _key: str) -> None:
        """Newer hosts ask: the weight keeps its shape."""

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        _strength_model: float,
        _offset: object,
        _function: object,
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        """`weight` with every step added, each at `strength` times its own, in place where the steps are.

        What else the host passes belongs to patches under keys with an offset or a function; these keys are plain.
        """
        steps = [(strength * own, *rest) for own, *rest in self.weights]
        return comfy.lora.calculate_weight(steps, weight, key, intermediate_dtype, original_weight)


def patch_of(changes: Sequence[Layer | Adapter]) -> WeightAdapterBase:
    """One patch of one weight by all `changes`, in their order."""
    layers = [change for change in changes if isinstance(change, Layer)]
    if len(layers) == len(changes):
        return RowBlocksAdapter.of(layers)
    steps: list[Step] = []
    for kind, group in groupby(changes, type):
        if kind is Layer:
            row_blocks = RowBlocksAdapter.of([change for change in group if isinstance(change, Layer)])
            steps.append((1.0, row_blocks, 1.0, None, None))
        else:
            steps += [step for change in group if isinstance(change, WeightPatch) for step in change.at_strength()]
    return ChainAdapter(set(), steps)


def on_model(lora: BlockLoRA, weights: Weights) -> Fit:
    """`lora` with adapters alone, named by weight, each with what it does to its weight.

    ValueError for one that ComfyUI would not apply whole.
    """
    if not lora.adapters:
        return Fit(lora.with_layers({}), [], [])
    misfits: list[str] = []
    made_of: dict[str, list[Adapter]] = defaultdict(list)
    steps: dict[str, list[Step]] = defaultdict(list)
    for stem, adapter in lora.adapters.items():
        if stem not in weights.targets:
            continue
        for target, value in _read(lora, stem, adapter, weights.targets[stem]).items():
            name, offset, function = _place(target)
            step = (1.0, value, 1.0, offset, function)
            try:
                _check(name, step, weights)
            except ShapeError as error:
                misfits.append(f"{stem}: {error}")
                continue
            made_of[name].append(adapter)
            steps[name].append(step)
    found = {name: _patch(made_of[name], steps[name], weights.shapes[name]) for name in steps}
    unknown = [stem for stem in lora.adapters if stem not in weights.targets]
    return Fit(lora.with_layers({}).with_adapters(found), unknown, misfits)


def _place(target: Any) -> tuple[str, Any, Any]:
    """Weight, rows and function of a target of ComfyUI's key maps."""
    if isinstance(target, str):
        return target, None, None
    name, offset, *function = target
    return name, offset, function[0] if function else None


def as_layer(name: str, adapter: Adapter) -> Layer:
    """The same change, dense, at strength 1: what ComfyUI makes of zeros. ValueError when it is no matrix."""
    if not isinstance(adapter, WeightPatch) or len(adapter.shape) < 2:
        raise ValueError(f"{name}: expected a change of a matrix or a kernel, got one of a vector by a {adapter.kind}.")
    return Layer.of_dense(comfy.lora.calculate_weight(list(adapter.steps), torch.zeros(adapter.shape), name))


def _patch(adapters: Sequence[Adapter], steps: Sequence[Step], shape: tuple[int, ...]) -> Adapter:
    # Several where they are of a weight's pieces: one that depends on the weight speaks for all.
    first = min(adapters, key=lambda adapter: adapter.fixed)
    return WeightPatch(first.kind, first.tensors, 1.0, tuple(steps), shape)


class _Recorded(UserDict[str, Tensor]):
    """A file's tensors that remember which of them were read."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        super().__init__(tensors)
        self.unread = set(tensors)

    def __getitem__(self, name: str) -> Tensor:
        self.unread.discard(name)
        return super().__getitem__(name)


def _read(lora: BlockLoRA, stem: str, adapter: Adapter, target: Any) -> dict[Any, Any]:
    """ComfyUI's patches for one layer: target -> value."""
    tensors = _Recorded({f"{stem}.{word}": value for word, value in adapter.tensors.items()})
    try:
        found: dict[Any, Any] = comfy.lora.load_lora(tensors, {stem: target}, log_missing=False)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{lora.label}: {stem}: ComfyUI cannot read this {adapter.kind}: {error!r}.") from error
    if tensors.unread or not found:
        left = ", ".join(sorted(tensors.unread)) or stem
        raise ValueError(
            f"{lora.label}: expected a {adapter.kind} that ComfyUI applies whole, but it does not know {left}. Update "
            "ComfyUI, or leave this file out."
        )
    return found


def _check(name: str, step: Step, weights: Weights) -> None:
    """ComfyUI catches what goes wrong in an adapter and goes on without it, so it is tried first, in form alone."""
    if name not in weights.shapes:
        raise ShapeError(f"expected a weight to change, the model has no {name}.")
    value, offset, shape = step[1], step[3], weights.shapes[name]
    part = list(shape)
    if offset is not None:
        part[offset[0]] = offset[2]
    if isinstance(value, tuple):
        given = tuple(value[1][0].shape)
        if given != tuple(part):
            raise ShapeError(f"{name}: expected a difference of shape {tuple(part)}, got {given}.")
    elif not _changes(step, name, shape):
        raise ShapeError(f"{name}: expected a change of shape {tuple(part)}, got a {value.name} that does not fit.")


def _changes(step: Step, name: str, shape: tuple[int, ...]) -> bool:
    # OFT looks at values, which tensors without data have not; it is cheap on zeros.
    device = "cpu" if "oft" in step[1].name else "meta"
    with torch.inference_mode(False), torch.no_grad():
        weight = torch.zeros(shape, device=device)
        before = weight._version
        changed = comfy.lora.calculate_weight([step], weight, name)
        return changed is weight and weight._version > before
