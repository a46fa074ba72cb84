"""Other ways to use several concepts: in turn, or as a mean, while a picture is sampled."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...blocklora_core.concept.concept import Stack
from ...blocklora_core.host.sample.modes import MODES, Sampled, apply_mode
from ...blocklora_core.reports.words import without_place
from ..schema import StackType, schema, shown

_HOW = {
    "switch": "{every} steps each, in turn",
    "composite": "all at every step, as the mean of {count} predictions",
}


def _report(sampled: Sampled, mode: str, every: int) -> str:
    names = [lora.concept.name for lora in sampled.members]
    lines = [f"{', '.join(names)}: {_HOW[mode].format(every=every, count=len(names))}"]
    if sampled.text_layers:
        lines.append(f"{sampled.text_layers} layers of text encoders were averaged: a prompt is encoded once.")
    lines += without_place(sampled.unused)
    return "\n".join(lines)


class BlockLoRASamplingModes(io.ComfyNode):
    """LoRA Switch and LoRA Composite."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRASamplingModes",
            "BlockLoRA Switch / Composite",
            description="Uses several concepts without merging them: one after the other, or as the mean of their predictions.",
            search_aliases=["lora switch", "lora composite", "multi lora"],
            inputs=[
                io.Model.Input("model", tooltip="The base model the concepts were trained on."),
                io.Clip.Input("clip", tooltip="Its text encoder. The one that comes out understands the concepts' names."),
                StackType.Input("stack", tooltip="The concepts, in the order in which switch takes them."),
                io.Combo.Input(
                    "mode", options=list(MODES), default="switch",
                    tooltip="switch: one concept at a time, as quick as plain sampling. composite: all at every step, as many times slower as there are concepts.",
                ),
                io.Int.Input(
                    "every", default=5, min=1, max=1000,
                    tooltip="switch: how many steps each concept has before the next one's turn.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="For a stock KSampler."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder that understands the names."),
                io.String.Output(display_name="report", tooltip="Who takes part, and how."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, clip: Any, stack: Stack, mode: str, every: int) -> io.NodeOutput:
        sampled = apply_mode(stack, model, clip, mode, every)
        report = _report(sampled, mode, every)
        return io.NodeOutput(sampled.model, sampled.clip, report, ui=shown(report, stack))


NODES = [BlockLoRASamplingModes]
