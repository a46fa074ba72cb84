"""The inspection node: who owns what, and who will bleed into whom."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...blocklora_core.concept.concept import Stack
from ...blocklora_core.host.interrupt import cancellable
from ...blocklora_core.host.train.progress import to_image
from ...blocklora_core.host.weights.patching import resolve
from ...blocklora_core.reports.inspection import inspect, report_picture, table, text
from ...blocklora_core.reports.words import without_place
from ..schema import StackType, holding, schema, shown


def on_base(stack: Stack, model: Any, clip: Any) -> tuple[Stack, list[str]]:
    """The stack with layers named by the base's weights, and what has no place there; without MODEL as it is."""
    if model is None:
        return stack, []
    if clip is None and (texts := [lora.label for lora in stack if lora.text_only().layers]):
        raise ValueError(
            f"Inspect: expected CLIP beside MODEL, got none, and {texts[0]} changes the text encoder too. Connect the CLIP "
            "of the same checkpoint."
        )
    stack, unused = resolve(stack, model, clip)
    return stack, without_place(unused)


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
            stack, left = on_base(stack, model, clip)
            inspection = inspect(stack, matched=model is not None)
            report, image = "\n".join([text(inspection), *left]), to_image(report_picture(stack, inspection))
        told = holding(report, "will bleed", "may bleed")
        return io.NodeOutput(report, table(inspection), image, ui=shown(report, stack, told, image))


NODES = [BlockLoRAInspect]
