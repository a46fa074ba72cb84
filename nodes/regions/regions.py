"""Prompts for parts of the picture."""

from __future__ import annotations

import logging
from typing import Any

import torch
from comfy_api.latest import io

from ...blocklora_core.concept.names import Names
from ...blocklora_core.host.queued import queued
from ...blocklora_core.host.regions.regional import RegionalSampling, apply_regions
from ...blocklora_core.host.train.progress import to_image
from ...blocklora_core.host.weights.patching import merged_names
from ...blocklora_core.regions import MOST_WEIGHT, OVERLAP_RULES, Box, OverlapRule, Region, Regions, Shape
from ...blocklora_core.reports.regions import regions_picture
from ..checks import here, told_before
from ..schema import RegionsType, node_id, schema, shown


def _share(name: str, default: float, tooltip: str, least: float = 0.0) -> Any:
    return io.Float.Input(
        name, default=default, min=least, max=1.0, step=0.01, display_mode=io.NumberDisplay.slider, tooltip=tooltip
    )


def not_merged(model: Any, regions: Regions) -> str:
    """A note where a region's concept is not merged into the model; empty where all are."""
    known = Names(merged_names(model))
    missing = dict.fromkeys(region.concept for region in regions if region.concept and region.concept not in known)
    return f"Regions name {', '.join(missing)}, which is not merged into this model." if missing else ""


def _report(regions: Regions, overlap: OverlapRule, note: str) -> str:
    lines = [f"{len(regions)} regions; where they overlap: {overlap}"]
    lines += [f"{one.concept or 'no concept'}: weight {one.weight:g}, feather {one.feather:g}" for one in regions]
    return "\n".join(filter(None, [*lines, note]))


def _shape(box: Box, mask: torch.Tensor | None) -> Shape:
    if mask is None:
        return box
    if mask.ndim == 3 and mask.shape[0] > 1:
        raise ValueError(f"Region: expected one mask, got a batch of {mask.shape[0]}. Use a region for each.")
    return mask[0] if mask.ndim == 3 else mask


class BlockLoRARegion(io.ComfyNode):
    """One region and its prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRARegion",
            "BlockLoRA Region",
            description="A part of the picture with a prompt of its own. Chain one node for each, then connect BlockLoRA Regional Sampling.",
            search_aliases=["regional prompt", "area", "couple", "attention couple", "box"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What the region shows, from any prompt node. Say the scene here, too: inside, it stands in place of the sampler's prompt."),
                _share("x", 0.0, "Left edge of the box, as a share of the picture's width."),
                _share("y", 0.0, "Upper edge of the box, as a share of the picture's height."),
                _share("width", 0.5, "Width of the box, as a share of the picture's. What reaches beyond the picture is cut off.", 0.01),
                _share("height", 1.0, "Height of the box, as a share of the picture's.", 0.01),
                io.String.Input("concept", default="", tooltip="Who is in it, such as <hero>: its name in the layout picture and in errors."),
                io.Float.Input("weight", default=1.0, min=0.0, max=MOST_WEIGHT, step=0.05, tooltip="1 as in the paper. Below 1 the sampler's prompt shows through; above 1 the region outweighs others that it overlaps."),
                _share("feather", 0.0, "Width of its soft edge, as a share of the picture's shorter side. 0 is a hard edge."),
                io.Int.Input("priority", default=0, min=-100, max=100, tooltip="Who is in front where regions overlap, when the overlap rule is priority. The higher; of equals, the last in the chain."),
                io.Mask.Input("mask", optional=True, tooltip="A freehand shape in place of the box, of any size."),
                io.Conditioning.Input("negative", optional=True, tooltip="What the region must not show. Without it, the sampler's negative prompt."),
                RegionsType.Input("regions", optional=True, tooltip="Regions before this one in the chain."),
            ],
            outputs=[RegionsType.Output(display_name="regions", tooltip="This region behind those that came in.")],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, x: float | None = None) -> bool | str:
        graph, own = queued(), node_id(cls) or ""
        return told_before(Box, x, *(here(graph, own, name) for name in ("y", "width", "height")))

    @classmethod
    def execute(
        cls, positive: Any, x: float, y: float, width: float, height: float, concept: str, weight: float,
        feather: float, priority: int, mask: torch.Tensor | None = None, negative: Any = None, regions: Regions = (),
    ) -> io.NodeOutput:  # fmt: skip
        shape = _shape(Box(x, y, width, height), mask)
        region = Region(
            shape,
            positive,
            negative=negative,
            concept=concept.strip(),
            weight=weight,
            feather=feather,
            priority=priority,
        )
        return io.NodeOutput((*regions, region))


class BlockLoRARegionalSampling(io.ComfyNode):
    """Makes a MODEL sample by regions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRARegionalSampling",
            "BlockLoRA Regional Sampling",
            description="Gives every region of the picture its own prompt. The MODEL goes into a stock sampler.",
            search_aliases=["regional prompt", "attention couple", "mix of show", "regionally controllable sampling"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with, best with the concepts merged into it."),
                RegionsType.Input("regions", tooltip="The regions, from BlockLoRA Region."),
                io.Combo.Input("overlap", options=list(OVERLAP_RULES), default="mean", tooltip="Where regions overlap: mean lets all show, by their weights, as in the paper; priority lets the one in front."),
                _share("start", 0.0, "When regions begin, as a share of the sampling. Before, there is only the sampler's prompt."),
                _share("end", 1.0, "When regions end, as a share of the sampling."),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="For a stock sampler, whose positive prompt is for all that lies outside the regions."),
                io.Image.Output(display_name="layout", tooltip="Where the regions lie, each in its colour."),
                io.String.Output(display_name="report", tooltip="The regions and their concepts; says where one's concept is not merged into the model."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, regions: Regions, overlap: OverlapRule, start: float, end: float) -> io.NodeOutput:
        regional = apply_regions(model, RegionalSampling(regions, overlap, start, end))
        image = to_image(regions_picture(regions, overlap))
        note = not_merged(model, regions)
        report = _report(regions, overlap, note)
        if note:
            logging.warning("BlockLoRA: %s", note)
        return io.NodeOutput(regional, image, report, ui=shown(report, warnings=filter(None, [note]), picture=image))


NODES = [BlockLoRARegion, BlockLoRARegionalSampling]
