"""From a file's key stems to the weights of a loaded model, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import comfy.lora
import torch
from torch import Tensor, nn

from ...concept import keys
from ...concept.concept import BlockLoRA
from ...concept.layer import Layer, ShapeError, concat_layers, placed
from ...concept.rows import Parts, all_rows
from ...training.port import AdaptedLayer, is_linear
from ..comfy import ComfyClip, ComfyModel
from .fused import parts_of


class Piece(NamedTuple):
    """Rows of a weight that is several layers to trainers, such as a fused Q, K and V, or a layer of other order.

    order: row of the trainer's layer for each of `rows`; None for the same order.
    """

    weight: str
    rows: range
    order: Tensor | None = None


@dataclass(frozen=True)
class Weights:
    """A loaded model's weights.

    stems: every key stem that ComfyUI accepts for a whole weight -> weight name; pieces: for rows of one -> which.
    shapes: weight name -> shape. targets: stem -> what ComfyUI's own loader patches for it, in its own form.
    parts: weight name -> rows of its parts, of those that are several layers in one and whose names do not tell.
    fits: what was found of concepts that were put onto these weights before, as long as they live.
    """

    stems: Mapping[str, str]
    pieces: Mapping[str, Piece]
    shapes: Mapping[str, tuple[int, ...]]
    targets: Mapping[str, Any]
    parts: Mapping[str, Parts]
    fits: WeakKeyDictionary[BlockLoRA, Fit] = field(default_factory=WeakKeyDictionary)


_LISTED: WeakKeyDictionary[Any, Weights] = WeakKeyDictionary()
_TOGETHER: WeakKeyDictionary[Any, WeakKeyDictionary[Any, Weights]] = WeakKeyDictionary()


def _listed(module: Any, list_stems: Callable[[Any, dict[str, Any]], dict[str, Any]]) -> Weights:
    # Once for each loaded model: its names never change, and listing them takes longer than a merge.
    if module not in _LISTED:
        targets = list_stems(module, {})
        shapes = {name: tuple(weight.shape) for name, weight in module.state_dict().items()} | _of_linears(module)
        # The host lists names for all variants of an architecture, also of what this model has not.
        pieces = {stem: piece for stem, target in targets.items() if (piece := _piece(target, shapes))}
        _LISTED[module] = Weights(
            {stem: target for stem, target in targets.items() if isinstance(target, str) and target in shapes},
            pieces,
            shapes,
            {stem: target for stem, target in targets.items() if _name_of(target) in shapes},
            parts_of(module, (piece[:2] for piece in pieces.values()), shapes),
        )
    return _LISTED[module]


def _of_linears(module: nn.Module) -> dict[str, tuple[int, ...]]:
    # What a quantised one keeps may be of another shape than the weight that it stands for.
    named = {f"{name}.weight": AdaptedLayer.of(one) for name, one in module.named_modules() if is_linear(one)}
    return {name: (layer.out_features, layer.in_features) for name, layer in named.items() if layer}


def _piece(target: Any, shapes: Mapping[str, tuple[int, ...]]) -> Piece | None:
    if isinstance(target, str) or target[0] not in shapes:
        return None
    weight, offset, *function = target
    dim, start, length = offset or (0, 0, shapes[weight][0])
    if dim != 0 or start + length > shapes[weight][0]:
        return None
    if not function:
        return Piece(weight, range(start, start + length))
    order = _order(function[0], length)
    return None if order is None else Piece(weight, range(start, start + length), order)


def _order(function: Callable[[Tensor], Tensor], rows: int) -> Tensor | None:
    """Which row of a change becomes which by the host's function, such as one that swaps halves; None for a function
    that does more than that."""
    numbers = torch.arange(rows, dtype=torch.float64)
    order = function(numbers[:, None])[:, 0]
    return order.long() if torch.equal(order.sort()[0], numbers) else None


def _name_of(target: Any) -> str:
    return target if isinstance(target, str) else target[0]


# What trainers put before a layer's name in the network, where ComfyUI has another start of its own, or none.
_STARTS = ("transformer.base_model.model.", "unet.base_model.model.", "base_model.model.", "transformer.", "model.", "")
_OWN_STARTS = ("transformer.", "diffusion_model.", "")


def known_stem(stem: str, weights: Weights) -> str:
    """The stem under which ComfyUI knows the layer `stem`: itself, or one that differs in its start alone; `stem`
    where there is none."""
    if stem in weights.targets:
        return stem
    start = next(start for start in _STARTS if stem.startswith(start))
    bare = stem[len(start) :]
    return next((name for own in _OWN_STARTS if (name := f"{own}{bare}") in weights.targets), stem)


def shape_of(stem: str, weights: Weights) -> tuple[int, ...]:
    """Shape of the weight, or of the piece of one, that `stem` changes; empty where there is none."""
    if stem in weights.stems:
        return weights.shapes[weights.stems[stem]]
    piece = weights.pieces.get(stem)
    return (len(piece.rows), *weights.shapes[piece.weight][1:]) if piece else ()


def weights_of(model: ComfyModel, clip: ComfyClip | None) -> Weights:
    """MODEL's and CLIP's together."""
    if clip is None:
        return model_weights(model)
    together = _TOGETHER.setdefault(model.model, WeakKeyDictionary())
    if clip.patcher.model not in together:
        together[clip.patcher.model] = _joined([model_weights(model), clip_weights(clip)])
    return together[clip.patcher.model]


def _joined(sides: Sequence[Weights]) -> Weights:
    return Weights(
        {stem: name for side in sides for stem, name in side.stems.items()},
        {stem: piece for side in sides for stem, piece in side.pieces.items()},
        {name: shape for side in sides for name, shape in side.shapes.items()},
        {stem: target for side in sides for stem, target in side.targets.items()},
        {name: parts for side in sides for name, parts in side.parts.items()},
    )


def model_weights(model: ComfyModel) -> Weights:
    """MODEL's."""
    return weights_in(model)


def clip_weights(clip: ComfyClip) -> Weights:
    """CLIP's."""
    return weights_in(clip.patcher)


def weights_in(patcher: ComfyModel) -> Weights:
    """Those of a MODEL, or of a CLIP's patcher."""
    is_model = hasattr(patcher.model, "diffusion_model")
    return _listed(patcher.model, comfy.lora.model_lora_keys_unet if is_model else comfy.lora.model_lora_keys_clip)


def model_stems(model: ComfyModel) -> Mapping[str, str]:
    """Every key stem that ComfyUI accepts for MODEL -> weight name."""
    return model_weights(model).stems


def clip_stems(clip: ComfyClip) -> Mapping[str, str]:
    """Every key stem that ComfyUI accepts for CLIP -> weight name."""
    return clip_weights(clip).stems


def preferred_stems(stems: Mapping[str, str]) -> dict[str, str]:
    """Weight name -> the stem that our files use for it."""
    candidates: dict[str, list[str]] = defaultdict(list)
    for stem, name in stems.items():
        candidates[name].append(stem)
    return {name: keys.preferred(accepted) for name, accepted in candidates.items()}


@dataclass(frozen=True)
class Fit:
    """A concept on a model's weights. unknown: stems that the model does not have. misfits: why a layer that it has
    does not fit."""

    lora: BlockLoRA
    unknown: list[str]
    misfits: list[str]


def on_weights(lora: BlockLoRA, weights: Weights) -> Fit:
    """The concept with its layers named by weight and of its shape.

    Layers of a weight's pieces become one layer of it. ValueError for several that change the same rows.
    """
    misfits: list[str] = []
    names: dict[str, str] = {}  # All pieces of a weight read its input.
    pieces: dict[str, list[Layer]] = defaultdict(list)
    for stem, layer in lora.layers.items():
        name = weights.stems.get(stem) or (weights.pieces[stem].weight if stem in weights.pieces else None)
        if name is None:
            continue
        names[stem] = name
        try:
            layer = _fitted(stem, name, layer, weights)
            pieces[name].append(layer)
        except ShapeError as error:
            misfits.append(str(error))
    layers = {name: found[0] if len(found) == 1 else _concat(lora, name, found) for name, found in pieces.items()}
    grams = lora.grams.renamed(names) if lora.grams else None
    unknown = [stem for stem in lora.layers if stem not in names]
    return Fit(replace(lora, layers=layers, grams=grams), unknown, misfits)


def in_form(lora: BlockLoRA, weights: Weights) -> BlockLoRA:
    """`lora`, its layers in the form of the weights that they change, under the names that they have.

    Files may write a matrix as a 1x1 convolution, or one as a matrix. What is of another shape stays as it is.
    """
    formed: dict[str, Layer] = {}
    for stem, layer in lora.layers.items():
        shape = shape_of(known_stem(stem, weights), weights)
        if shape and (len(shape) == 2) != layer.is_matrix:
            with suppress(ShapeError):
                formed[stem] = layer.fitted(shape)
    return lora.with_layers({**lora.layers, **formed}) if formed else lora


def _fitted(stem: str, name: str, layer: Layer, weights: Weights) -> Layer:
    """The layer of the weight `name`. ShapeError where it is not of its shape."""
    if stem not in weights.stems:
        _, rows, order = weights.pieces[stem]
        if order is not None:
            layer = _shaped(stem, _ordered, layer, order)
        layer = _shaped(stem, placed, layer, rows, weights.shapes[name][0])
    return _shaped(name, layer.fitted, weights.shapes[name])


def _ordered(layer: Layer, order: Tensor) -> Layer:
    if layer.out_features != len(order):
        raise ShapeError(f"expected {len(order)} rows, the layer has {layer.out_features}.")
    return replace(layer, up=layer.full_up()[order], rows=all_rows(len(order)))


def _shaped(what: str, change: Callable[..., Layer], *inputs: Any) -> Layer:
    try:
        return change(*inputs)
    except ShapeError as error:
        raise ShapeError(f"{what}: {error}") from error


def _concat(lora: BlockLoRA, name: str, layers: list[Layer]) -> Layer:
    try:
        return concat_layers(layers)
    except ValueError as error:
        raise ValueError(f"{lora.label}: expected one layer for each row of {name}, got several. {error}") from error
