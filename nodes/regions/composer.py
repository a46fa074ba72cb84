"""LoRA-Composer: several concepts in one picture, each in its own region."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ...blocklora_core.concept.concept import Stack
from ...blocklora_core.host.composer.composer import Composed, apply_composer
from ...blocklora_core.host.composer.prompt import concept_prompt, member
from ...blocklora_core.host.train.progress import to_image
from ...blocklora_core.regions import OVERLAP_RULES, OverlapRule, Regions
from ...blocklora_core.regions.composer.options import (
    DEFAULT_PRESET,
    DEFAULTS,
    FILL_MEANS,
    PRESETS,
    ComposerOptions,
    preset_of,
)
from ...blocklora_core.reports.regions import regions_picture
from ..checks import told_before
from ..schema import ComposerOptionsType, RegionsType, StackType, schema, shown


class BlockLoRAConceptPrompt(io.ComfyNode):
    """A region's prompt that knows where its concept stands."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAConceptPrompt",
            "BlockLoRA Concept Prompt",
            description="Encodes a region's prompt and remembers which of its tokens are the concept's. BlockLoRA Composer needs to know.",
            search_aliases=["clip text encode", "region prompt", "lora composer"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP that comes out of BlockLoRA Merge, or the base's with a stack."),
                io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="What the region shows, with the concept in it: a photo of <hero> in a red coat."),
                io.String.Input("concept", default="", tooltip="The concept's name, or the words that stand for it, just as they are in the text."),
                StackType.Input("stack", optional=True, tooltip="Concepts that are not merged: the one of that name is used, with its own token and text encoder."),
            ],
            outputs=[io.Conditioning.Output(display_name="CONDITIONING", tooltip="For the positive prompt of BlockLoRA Region.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, clip: Any, text: str, concept: str, stack: Stack | None = None) -> io.NodeOutput:
        concept = concept.strip()
        lora = member(stack, concept) if stack is not None else None
        return io.NodeOutput(concept_prompt(clip, text, concept, lora))


def _number(name: str, most: float, step: float, tooltip: str) -> Any:
    return io.Float.Input(
        name, default=getattr(DEFAULTS, name), min=0.0, max=most, step=step, round=False, tooltip=tooltip
    )


def _whole(name: str, most: int, step: int, tooltip: str) -> Any:
    return io.Int.Input(
        name, default=getattr(DEFAULTS, name), min=1 if step == 2 else 0, max=most, step=step, tooltip=tooltip
    )


class BlockLoRAComposerOptions(io.ComfyNode):
    """Every number of LoRA-Composer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAComposerOptions",
            "BlockLoRA Composer Options",
            description="Every weight and schedule of LoRA-Composer, in place of a preset. The defaults are those of the default preset.",
            inputs=[
                _number("enhancement", 1000.0, 0.1, "Weight of L_ce: the concept lights up in its box. Paper 1, code 8."),
                _number("fill", 1000.0, 0.05, "Weight of L_fill: it fills the box. Paper 0.25, code 2."),
                _number("region", 1000.0, 0.1, "Weight of L_region: the box does not look outside. Paper 0.8, code 10."),
                io.Boolean.Input("centred", default=DEFAULTS.centred, tooltip="L_ce counts the middle of a box more than its edges."),
                _number("gaussian_sigma", 100.0, 0.1, "How wide the middle is; the box reaches from -1 to 1."),
                _number("top_k", 1.0, 0.05, "Share of the box's area whose highest values count."),
                io.Combo.Input("fill_mean", options=list(FILL_MEANS), default=DEFAULTS.fill_mean, tooltip="L_fill is a mean over the box's rows and columns (paper), or over the whole map's (code)."),
                _whole("smoothing_kernel", 99, 2, "Side of the filter that smooths the maps, an odd number."),
                _number("smoothing_sigma", 100.0, 0.1, "Width of that filter, as the code has it."),
                _number("step_size", 10000.0, 1.0, "How far each step moves the latents. 0 leaves them."),
                _number("first_scale", 100.0, 0.05, "The first step counts the square root of this."),
                _number("last_scale", 100.0, 0.05, "The last step counts the square root of this."),
                _whole("last_step", 10000, 1, "Number of the last step that may be guided; the first is 0."),
                _whole("patience", 10000, 1, "From this step on, guidance ends as soon as the loss rises."),
            ],
            outputs=[ComposerOptionsType.Output(display_name="options", tooltip="For BlockLoRA Composer.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, **numbers: Any) -> io.NodeOutput:
        return io.NodeOutput(ComposerOptions(**numbers))


def _chosen(base: ComposerOptions, parts: dict[str, bool]) -> ComposerOptions:
    """`base` without the parts that are switched off."""
    losses = {name: getattr(base, name) if parts[name] else 0.0 for name in ("enhancement", "fill", "region")}
    switched = {name: parts[name] for name in ("injection", "isolation", "reinitialise")}
    changed: dict[str, Any] = {**losses, **switched}
    return replace(base, **changed)


def _part(name: str, tooltip: str) -> Any:
    return io.Boolean.Input(name, default=True, tooltip=tooltip)


class BlockLoRAComposer(io.ComfyNode):
    """LoRA-Composer on a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAComposer",
            "BlockLoRA Composer",
            description="LoRA-Composer: regional sampling that also puts each concept into its region and keeps the concepts apart. The MODEL goes into a stock sampler.",
            search_aliases=["lora composer", "multi concept", "layout", "box", "attention guidance"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with: with the concepts merged into it, or the base with a stack."),
                RegionsType.Input("regions", tooltip="The regions, from BlockLoRA Region, with prompts of BlockLoRA Concept Prompt."),
                io.Combo.Input("preset", options=list(PRESETS), default=DEFAULT_PRESET, tooltip="How hard guidance pulls. gentle: the paper's weights with the step of its authors' code. medium: the same, each step twice as far. strong: the weights of the authors' code, found on SD1.5, eight times as hard as gentle and more."),
                _part("injection", "Concepts of the stack act in their regions' prompts and pixels."),
                _part("enhancement", "Guidance: each concept lights up in its box (L_ce)."),
                _part("fill", "Guidance: it fills the box (L_fill)."),
                _part("region", "Guidance: boxes do not look at what lies outside (L_region)."),
                _part("isolation", "In self-attention, boxes do not see each other. Costs nothing."),
                _part("reinitialise", "Each box starts from the noise that its concept likes best. Costs one forward."),
                io.Combo.Input("overlap", options=list(OVERLAP_RULES), default="mean", tooltip="Where regions overlap: mean lets all show, by their weights, as in the paper; priority lets the one in front."),
                StackType.Input("stack", optional=True, tooltip="Concepts that are not merged into the model: each acts in the regions whose concept is its name."),
                ComposerOptionsType.Input("options", optional=True, tooltip="From BlockLoRA Composer Options, in place of the preset."),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="For a stock sampler, whose positive prompt is the whole picture's."),
                io.Image.Output(display_name="layout", tooltip="Where the regions lie, each in its colour."),
                io.String.Output(display_name="report", tooltip="What is done, and what of the stack takes part."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, preset: str | None = None) -> bool | str:
        """In place of the host's look into the list, which would refuse what presets were called in 0.1."""
        return told_before(preset_of, preset)

    @classmethod
    def execute(
        cls, model: Any, regions: Regions, preset: str, overlap: OverlapRule, stack: Stack | None = None,
        options: ComposerOptions | None = None, **parts: bool,
    ) -> io.NodeOutput:  # fmt: skip
        chosen = _chosen(preset_of(preset) if options is None else options, parts)
        composed = apply_composer(model, regions, chosen, overlap, stack or ())
        image, report = to_image(regions_picture(regions, overlap)), composer_report(composed, chosen)
        return io.NodeOutput(composed.model, image, report, ui=shown(report, stack or ()))


def composer_report(composed: Composed, options: ComposerOptions) -> str:
    weights = ", ".join(f"{name} {getattr(options, name):g}" for name in ("enhancement", "fill", "region"))
    lines = [f"Guidance: {weights}, up to {options.last_step + 1} steps" if options.guides else "Guidance: none"]
    lines.append(f"Boxes apart in self-attention: {'yes' if options.isolation else 'no'}")
    lines.append(f"Noise re-initialised: {'yes' if options.reinitialise else 'no'}")
    lines.append(f"Injected layers: {composed.layers}")
    for name, count in composed.left_out.items():
        lines.append(f"{name}: {count} layers are not a cross-attention's K, V or out and act nowhere")
    return "\n".join(lines)


NODES = [BlockLoRAConceptPrompt, BlockLoRAComposer, BlockLoRAComposerOptions]
