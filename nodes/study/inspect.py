"""The inspection node: who owns what, and who will bleed into whom."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...blocklora_core.concept.concept import Stack
from ...blocklora_core.host.interrupt import cancellable
from ...blocklora_core.host.train.progress import to_image
from ...blocklora_core.host.weights.patching import resolve
from ...blocklora_core.reports.inspection import inspect, report_picture, table, text
from ..schema import StackType, holding, schema, shown


class BlockLoRAInspect(io.ComfyNode):
    """Tells before a merge whether concepts will bleed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAInspect",
            "BlockLoRA Inspect",
            description="Tells who owns which rows, and whether concepts will bleed into each other, before you merge.",
            search_aliases=["lora report", "analyse", "interference"],
            is_output_node=True,
            inputs=[
                StackType.Input("stack", tooltip="The concepts to look at, with their strengths."),
                io.Model.Input("model", optional=True, tooltip="The base, from Load Checkpoint: it knows which layers are the same where trainers name them differently."),
                io.Clip.Input("clip", optional=True, tooltip="The base's text encoder, for the layers that files change there."),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="Each concept, and a verdict on each pair."),
                io.String.Output(display_name="table", tooltip="One line for each weight, comma-separated, for a spreadsheet."),
                io.Image.Output(display_name="picture", tooltip="The map of rows, the pairs, and interference layer by layer."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, stack: Stack, model: Any = None, clip: Any = None) -> io.NodeOutput:
        with cancellable():
            if model is not None:
                stack, _ = resolve(stack, model, clip)
            inspection = inspect(stack, matched=model is not None)
            report, image = text(inspection), to_image(report_picture(stack, inspection))
        told = holding(report, "will bleed", "may bleed")
        return io.NodeOutput(report, table(inspection), image, ui=shown(report, stack, told, image))


NODES = [BlockLoRAInspect]
