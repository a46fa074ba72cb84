"""Regional prompts on a stock sampler: wrappers on a clone of MODEL, and nothing on the model itself.

Around a sampling, one wrapper keeps what its steps share; around each prediction, another changes the options of that
one call. So nothing is left when the sampling ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...regions import OverlapRule, Regions, check_regions, layout
from ..comfy import ComfyModel
from ..text.layerwise import cross_attention_blocks
from .cross import OnAttention, Project, project, with_cross_attention
from .joint import takes_longer_prompts, with_joint_attention
from .passes import a_pass_each
from .prompts import check_prompts
from .session import Call, Session

KEY = "blocklora_regions"

Change = Callable[[Call], Call]


@dataclass(frozen=True, eq=False)
class RegionalSampling:
    """What the wrappers know. start, end: of the sampling, as shares; outside that part, it is as without regions.

    project: how keys and values of a region's prompt come about, see cross.Project. on_attention: is called with each
    region's part of a cross-attention; None for nobody.
    """

    regions: Regions
    rule: OverlapRule = "mean"
    start: float = 0.0
    end: float = 1.0
    project: Project = project
    on_attention: OnAttention | None = None
    key: str = field(default_factory=lambda: f"{KEY}_{uuid4().hex}")

    def __post_init__(self) -> None:
        check_regions(self.regions)
        layout(self.regions, (1, 1), self.rule)
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"Regions: expected 0 <= start < end <= 1, got {self.start:g} and {self.end:g}.")

    def sample(self, executor: Any, noise: Tensor, *args: Any, **named: Any) -> Tensor:
        """OUTER_SAMPLE: one session for the sampling, among the options that the guider made for it alone."""
        guider = executor.class_obj
        options = guider.model_options["transformer_options"]
        session = options[self.key] = Session(self, noise.shape, guider.conds)
        try:
            return executor(noise, *args, **named)
        finally:
            options.pop(self.key, None)
            session.clear()

    def predict(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        concat: Tensor | None = None,
        cross: Tensor | None = None,
        control: Any = None,
        transformer_options: Mapping[str, Any] = {},
        **named: Any,
    ) -> Tensor:
        """APPLY_MODEL: the model's own call, or several, with other options and other prompts."""

        def execute(call: Call) -> Tensor:
            found: Tensor = executor(call.x, call.t, call.concat, call.cross, call.control, call.options, **call.rest)
            return found

        session = transformer_options.get(self.key) or Session(self, x.shape, {})
        call = Call(executor.class_obj, session, x, t, concat, cross, control, transformer_options, named)
        if not (session.is_active(call.model.model_sampling, t) and any(call.sides)):
            return execute(call)
        change = session.cached("change", lambda: _change_of(call.network))
        return execute(change(call)) if change else a_pass_each(call, execute)


def _change_of(network: nn.Module) -> Change | None:
    """How one call of `network` serves all regions; None where each prompt needs one of its own."""
    if isinstance(network, UNetModel) and cross_attention_blocks(network):
        return with_cross_attention
    return with_joint_attention if takes_longer_prompts(network) else None


def apply_regions(model: ComfyModel, sampling: RegionalSampling) -> ComfyModel:
    """A clone of MODEL that samples by regions; the one given is not touched.

    ValueError for a region's prompt that does not fit the model. Whether the model's attention lets regions in shows
    when it samples: see picture.look.
    """
    check_prompts(sampling.regions, model.model.diffusion_model)
    regional = model.clone()
    regional.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, sampling.sample)
    regional.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, sampling.predict)
    return regional
