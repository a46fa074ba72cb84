"""From a file's key stems to the weights of a loaded model, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import comfy.lora
from torch import nn

from ...concept import keys
from ...concept.concept import BlockLoRA
from ...concept.layer import Layer, ShapeError, joined, placed
from ...training.port import AdaptedLayer, is_linear
from ..comfy import ComfyClip, ComfyModel


class Piece(NamedTuple):
    """Rows of a weight that is several layers to trainers, such as a fused Q, K and V."""

    weight: str
    rows: range


@dataclass(frozen=True)
class Weights:
    """A loaded model's weights.

    stems: every key stem that ComfyUI accepts for a whole weight -> weight name; pieces: for rows of one -> which.
    shapes: weight name -> shape. targets: stem -> what ComfyUI's own loader patches for it, in its own form.
    """

    stems: Mapping[str, str]
    pieces: Mapping[str, Piece]
    shapes: Mapping[str, tuple[int, ...]]
    targets: Mapping[str, Any]


_LISTED: WeakKeyDictionary[Any, Weights] = WeakKeyDictionary()


def _listed(module: Any, list_stems: Callable[[Any, dict[str, Any]], dict[str, Any]]) -> Weights:
    # Once for each loaded model: its names never change, and listing them takes longer than a merge.
    if module not in _LISTED:
        targets = list_stems(module, {})
        shapes = {name: tuple(weight.shape) for name, weight in module.state_dict().items()} | _of_linears(module)
        # The host lists names for all variants of an architecture, also of what this model has not.
        _LISTED[module] = Weights(
            {stem: target for stem, target in targets.items() if isinstance(target, str) and target in shapes},
            {stem: piece for stem, target in targets.items() if (piece := _piece(target)) and _is_in(piece, shapes)},
            shapes,
            {stem: target for stem, target in targets.items() if _name_of(target) in shapes},
        )
    return _LISTED[module]


def _of_linears(module: nn.Module) -> dict[str, tuple[int, ...]]:
    # What a quantised one keeps may be of another shape than the weight that it stands for.
    named = {f"{name}.weight": AdaptedLayer.of(one) for name, one in module.named_modules() if is_linear(one)}
    return {name: (layer.out_features, layer.in_features) for name, layer in named.items() if layer}


def _piece(target: Any) -> Piece | None:
    # A third entry is a function of the change, such as one that swaps halves: no low-rank change of rows.
    if isinstance(target, str) or len(target) != 2:
        return None
    weight, (dim, start, length) = target
    return Piece(weight, range(start, start + length)) if dim == 0 else None


def _name_of(target: Any) -> str:
    return target if isinstance(target, str) else target[0]


def _is_in(piece: Piece, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return piece.weight in shapes and piece.rows.stop <= shapes[piece.weight][0]


def weights_of(model: ComfyModel, clip: ComfyClip | None) -> Weights:
    """MODEL's and CLIP's together."""
    sides = [model_weights(model), *([clip_weights(clip)] if clip is not None else [])]
    return Weights(
        {stem: name for side in sides for stem, name in side.stems.items()},
        {stem: piece for side in sides for stem, piece in side.pieces.items()},
        {name: shape for side in sides for name, shape in side.shapes.items()},
        {stem: target for side in sides for stem, target in side.targets.items()},
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


def on_weights(lora: BlockLoRA, weights: Weights) -> tuple[BlockLoRA, list[str]]:
    """The concept with its layers named by weight and of its shape, and the stems that the model does not have.

    Layers of a weight's pieces become one layer of it. ShapeError for a layer that does not fit, ValueError for
    several that change the same rows.
    """
    whole = {stem: weights.stems[stem] for stem in lora.layers if stem in weights.stems}
    unknown = [stem for stem in lora.layers if stem not in weights.stems and stem not in weights.pieces]
    fitting = lora.with_layers({stem: lora.layers[stem] for stem in whole}).renamed_layers(whole)
    layers = {name: _fitted(name, layer, weights) for name, layer in fitting.layers.items()}
    for name, pieces in _placed(lora, weights).items():
        layers[name] = _joined(lora, name, [*pieces, *([layers[name]] if name in layers else [])])
    if fitting.grams:
        # All pieces of a weight read its input.
        owners = {stem: weights.pieces[stem].weight for stem in lora.layers if stem in weights.pieces}
        fitting = replace(fitting, grams=fitting.grams.renamed(owners))
    return fitting.with_layers(layers), unknown


def _placed(lora: BlockLoRA, weights: Weights) -> dict[str, list[Layer]]:
    found: dict[str, list[Layer]] = defaultdict(list)
    for stem, layer in lora.layers.items():
        if stem in weights.pieces:
            name, rows = weights.pieces[stem]
            found[name].append(_fitted(name, _shaped(stem, placed, layer, rows, weights.shapes[name][0]), weights))
    return found


def _fitted(name: str, layer: Layer, weights: Weights) -> Layer:
    return _shaped(name, layer.fitted, weights.shapes[name])


def _shaped(what: str, change: Callable[..., Layer], *inputs: Any) -> Layer:
    try:
        return change(*inputs)
    except ShapeError as error:
        raise ShapeError(f"{what}: {error}") from error


def _joined(lora: BlockLoRA, name: str, layers: list[Layer]) -> Layer:
    try:
        return joined(layers)
    except ValueError as error:
        raise ValueError(f"{lora.label}: expected one layer for each row of {name}, got several. {error}") from error
