"""Several people in one picture, drawn: regions, their prompts and the canvas in one node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...blocklora_core.concept.concept import Stack
from ...blocklora_core.host.queued import queued
from ...blocklora_core.host.regions.scene import SceneJob, Staged, stage
from ...blocklora_core.host.routes.scene_check import check_ahead
from ...blocklora_core.host.sample.latents import empty_latent
from ...blocklora_core.regions import OVERLAP_RULES, OverlapRule
from ...blocklora_core.regions.composer.options import DEFAULT_PRESET, PRESETS, preset_of
from ...blocklora_core.regions.scene import parse_scene, placed
from ..checks import told_before
from ..schema import StackType, advanced, newer, node_id, schema, shown
from .composer import composer_report
from .regions import not_merged

MODES = ("regional", "composer")

EMPTY = '{"boxes": []}'


def _report(staged: Staged, job: SceneJob, note: str) -> str:
    if not staged.regions:
        return "No boxes: the picture follows its own prompt alone."
    lines = [f"Box {number}: {box.text(job.prompt)}" for number, box in enumerate(job.boxes, 1)]
    if job.composer is not None and staged.composed is not None:
        lines.append(composer_report(staged.composed, job.composer))
    return "\n".join([*lines, note] if note else lines)


class BlockLoRAScene(io.ComfyNode):
    """A canvas of boxes, each with its concept and prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAScene",
            "BlockLoRA Scene",
            description="Draw where each person stands and say what each box shows. What comes out goes into a stock sampler.",
            search_aliases=["regional prompt", "canvas", "two people", "multi character", "attention couple", "bounding box", "lora composer"],
            inputs=[
                io.Model.Input("model", tooltip="From BlockLoRA Loader or Merge, with the concepts in it."),
                io.Clip.Input("clip", tooltip="From the same node: it understands the concepts' names."),
                io.Int.Input("width", default=768, min=16, max=16384, step=8, tooltip="Width of the picture in pixels; the canvas takes its shape."),
                io.Int.Input("height", default=512, min=16, max=16384, step=8, tooltip="Height of the picture in pixels."),
                io.String.Input("prompt", default="", multiline=True, dynamic_prompts=True, tooltip="The whole picture: place, light, style. It holds wherever no box lies, and in boxes where their prompts say {scene}."),
                io.String.Input("negative", default="", multiline=True, dynamic_prompts=True, tooltip="What the whole picture must not show."),
                io.String.Input("scene", default=EMPTY, multiline=True, tooltip="The boxes, as the canvas writes them. By hand: see the help page for what may stand here."),
                io.Combo.Input("mode", options=list(MODES), default=MODES[0], tooltip="regional: each box follows its own prompt, as quick as plain sampling on SD1.5 to Flux.1; newer models take a pass for each prompt. composer: LoRA-Composer, which also pulls each concept into its box; slower, SD1.5, SD2 and SDXL only."),
                advanced(io.Combo, "overlap", options=list(OVERLAP_RULES), default="priority", optional=True, tooltip="Where boxes overlap: priority shows the one in front, mean shows all, by their weights."),
                advanced(io.Combo, "preset", options=list(PRESETS), default=DEFAULT_PRESET, optional=True, tooltip="composer: how hard it pulls. Start with gentle."),
                advanced(io.Int, "batch_size", default=1, min=1, max=4096, optional=True, tooltip="How many pictures at once."),
                StackType.Input("stack", optional=True, tooltip="The concepts that boxes may name. Those that are not merged into MODEL act in their boxes alone, with mode composer."),
                *newer("BoundingBox", "bounding_boxes", optional=True, tooltip="Where the boxes are, in pixels, in place of where they were drawn: from a detector, or from the canvas of Create Bounding Boxes. As many as the scene has, in its order."),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="For a stock sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="The whole picture's prompt, for the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="What the picture must not show, for the sampler."),
                io.Latent.Output(display_name="latent", tooltip="An empty picture of this width and height, for the sampler."),
                io.String.Output(display_name="report", tooltip="What each box is asked to show, and what was noticed."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, scene: str | None = None) -> bool | str:
        graph, own = queued(), node_id(cls)
        return told_before(check_ahead, graph, own) if own in graph else told_before(parse_scene, scene)

    @classmethod
    def execute(
        cls, model: Any, clip: Any, width: int, height: int, prompt: str, negative: str, scene: str, mode: str,
        overlap: OverlapRule = "priority", preset: str = DEFAULT_PRESET, batch_size: int = 1,
        stack: Stack = (), bounding_boxes: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        boxes, size = parse_scene(scene), (height, width)
        if bounding_boxes is not None:
            boxes = placed(boxes, bounding_boxes, size)
        composer = preset_of(preset) if mode == "composer" else None
        job = SceneJob(boxes, prompt, negative, size, overlap, composer)
        staged = stage(model, clip, stack, job)
        note = "" if composer else not_merged(model, staged.regions)
        report, latent = _report(staged, job, note), empty_latent(size, batch_size)
        told = shown(report, stack, warnings=filter(None, [note]))
        return io.NodeOutput(staged.model, staged.positive, staged.negative, latent, report, ui=told)


NODES = [BlockLoRAScene]
