"""The inspection node: who owns what, and who will bleed into whom."""

from __future__ import annotations

from comfy_api.latest import io

from ...blocklora_core.concept.concept import Stack
from ...blocklora_core.host.interrupt import cancellable
from ...blocklora_core.host.train.progress import to_image
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
            inputs=[StackType.Input("stack", tooltip="The concepts to look at, with their strengths.")],
            outputs=[
                io.String.Output(display_name="report", tooltip="Each concept, and a verdict on each pair."),
                io.String.Output(display_name="table", tooltip="One line for each weight, comma-separated, for a spreadsheet."),
                io.Image.Output(display_name="picture", tooltip="The map of rows, the pairs, and interference layer by layer."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, stack: Stack) -> io.NodeOutput:
        with cancellable():
            inspection = inspect(stack)
            report, image = text(inspection), to_image(report_picture(stack, inspection))
        told = holding(report, "will bleed", "may bleed")
        return io.NodeOutput(report, table(inspection), image, ui=shown(report, stack, told, image))


NODES = [BlockLoRAInspect]
