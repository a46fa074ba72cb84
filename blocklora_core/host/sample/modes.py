"""LoRA Switch and LoRA Composite (Zhong et al., Multi-LoRA Composition, arXiv 2402.16843) on a stock sampler.

Weights stay as they are: while the model predicts, one concept's layers hang on it by forward hooks. Which concept
that is, a wrapper on our clone of MODEL decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...concept.concept import Stack
from ...merge.densify import layers_alone
from ...merge.methods.sums import per_row
from ...training.adapters.fixed import FixedLayers
from ..comfy import ComfyClip, ComfyModel
from ..weights.adapters import as_layer
from ..weights.fixed import fixed_layers, modules_of
from ..weights.patching import apply_merge, resolve

KEY = "blocklora_sampling_mode"
TEXT_METHOD = "weighted_average"
"""How text encoders' layers are put together: a prompt is encoded once, before any step."""

Predict = Callable[..., Tensor]


class Switch:
    """One concept at a time: the next after every `every` steps, and after the last the first again."""

    def __init__(self, members: Sequence[FixedLayers], every: int):
        self.members, self.every = tuple(members), every

    def __call__(
        self,
        predict: Predict,
        x: Tensor,
        t: Tensor,
        concat: Any = None,
        cross: Any = None,
        control: Any = None,
        transformer_options: Mapping[str, Any] = {},
        **named: Any,
    ) -> Tensor:
        step = step_of(t, transformer_options.get("sample_sigmas"))
        member = self.members[step // self.every % len(self.members)]
        with member.attached():
            return predict(x, t, concat, cross, control, transformer_options, **named)


class Composite:
    """The mean of what the model predicts with each concept alone, of the positive and of the negative prompt alike."""

    def __init__(self, members: Sequence[FixedLayers], _every: int):
        self.members = tuple(members)

    def __call__(
        self,
        predict: Predict,
        x: Tensor,
        t: Tensor,
        concat: Any = None,
        cross: Any = None,
        control: Any = None,
        transformer_options: Mapping[str, Any] = {},
        **named: Any,
    ) -> Tensor:
        predictions = []
        for member in self.members:
            with member.attached():
                fresh = fresh_control(control)
                predictions.append(predict(x, t, concat, cross, fresh, transformer_options, **named))
        return sum(predictions[1:], predictions[0]) / len(predictions)


MODES: Mapping[str, Callable[[Sequence[FixedLayers], int], Switch | Composite]] = {
    "switch": Switch,
    "composite": Composite,
}


def step_of(t: Tensor, sigmas: Tensor | None) -> int:
    """Number of the step, from 0, that the noise level `t` (B,) belongs to. sigmas: the sampler's, descending.

    A level between two of the sampler's, as second-order samplers use, belongs to the step that it lies in.
    """
    if sigmas is None:
        raise ValueError("LoRA Switch: expected a sampler that tells its noise levels, got none. Use KSampler.")
    # The host may round the level on the way here.
    reached = int((sigmas.to(t) >= float(t.max()) * (1 - 1e-4)).sum())
    return max(reached - 1, 0)


def fresh_control(control: Any) -> Any:
    """ControlNet's outputs for one more prediction, as the model takes them out of their lists."""
    if not isinstance(control, Mapping):
        return control
    return {name: list(value) if isinstance(value, list) else value for name, value in control.items()}


@dataclass(frozen=True)
class Sampled:
    """MODEL and CLIP for a stock sampler. members: the concepts, in their order. unused: see patching.resolve."""

    model: ComfyModel
    clip: ComfyClip | None
    members: Stack
    text_layers: int
    unused: Mapping[str, list[str]]


def apply_mode(stack: Stack, model: ComfyModel, clip: ComfyClip | None, mode: str, every: int = 5) -> Sampled:
    """Clones of MODEL and CLIP that sample by `mode`, a key of MODES; the ones given are not touched.

    A concept of strength 0 takes no part. ValueError for an empty stack, an unknown mode, and what does not fit.
    """
    if mode not in MODES:
        raise ValueError(f"Sampling mode: expected one of {', '.join(MODES)}, got {mode!r}.")
    if every < 1:
        raise ValueError(f"Steps: expected at least 1 for each concept, got {every}.")
    resolved, unused = resolve(stack, model, clip)
    members = tuple(lora for lora in resolved if lora.strength != 0.0)
    if not members:
        raise ValueError("Sampling modes: expected at least one concept of a strength other than 0, got none.")
    modules = modules_of(model, None)
    alone = [layers_alone(lora.model_only(), f"LoRA {mode.title()} changes layers", as_layer) for lora in members]
    fixed = [fixed_layers(lora, modules, text=False) for lora in per_row(tuple(alone))]
    # All that is not the diffusion model's: tokens, layer-wise prompts and text encoders' layers.
    applied = apply_merge(tuple(lora.text_only() for lora in stack), model, clip, TEXT_METHOD)
    applied.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, MODES[mode](fixed, every))
    return Sampled(applied.model, applied.clip, members, applied.clip_layers, unused)
