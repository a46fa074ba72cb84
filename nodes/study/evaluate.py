"""Nodes that measure whether merged concepts keep their identity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import comfy.samplers
import torch
from comfy_api.latest import io

from ...blocklora_core.concept.concept import Concept, Stack
from ...blocklora_core.evaluation import (
    Evaluation,
    Judge,
    Reference,
    References,
    as_dict,
    as_seen,
    evaluate_pictures,
    evaluation_picture,
    parse_boxes,
    table,
    text,
    whole_pictures,
    with_notes,
    with_reference,
)
from ...blocklora_core.host.evaluate.clip_embedder import ClipEmbedder
from ...blocklora_core.host.evaluate.evaluate import evaluate
from ...blocklora_core.host.evaluate.generate import Sampling
from ...blocklora_core.host.evaluate.job import PROMPTS, EvaluateJob, parse_counts
from ...blocklora_core.host.evaluate.progress import NodeProgress
from ...blocklora_core.host.train.progress import to_image
from ...blocklora_core.merge import METHODS, Options, Overlap
from ..schema import ReferencesType, StackType, advanced, schema, shown
from ..use.merge import option_inputs

OUTPUTS = (
    ("report", io.String, "Alignment, recognition and retention in words, with intervals."),
    ("json", io.String, "All figures, those of each picture included, as JSON."),
    ("table", io.String, "One line for each setting and concept, comma-separated, for a spreadsheet."),
    (
        "picture",
        io.Image,
        "Who is taken for whom, each concept alone and merged, and the curve over the number merged.",
    ),
)


def _outputs(pictures: str) -> list[Any]:
    found = [kind.Output(display_name=name, tooltip=tooltip) for name, kind, tooltip in OUTPUTS]
    return [*found, io.Image.Output(display_name="pictures", tooltip=pictures)]


def _output(evaluation: Evaluation, pictures: torch.Tensor) -> io.NodeOutput:
    report, image = text(evaluation), to_image(evaluation_picture(evaluation))
    return io.NodeOutput(
        report, json.dumps(as_dict(evaluation)), table(evaluation), image, pictures, ui=shown(report, picture=image)
    )


def _clip_inputs() -> list[Any]:
    return [
        ReferencesType.Input("references", tooltip="Reference pictures of every concept, from BlockLoRA References."),
        io.ClipVision.Input("clip_vision", tooltip="The CLIP vision model that compares pictures. The papers take ViT-B/32; any works."),
        io.Clip.Input(
            "text_clip", optional=True,
            tooltip="The CLIP text encoder that belongs to clip_vision, for text alignment. Leave it unconnected to do without.",
        ),
    ]  # fmt: skip


class BlockLoRAReferences(io.ComfyNode):
    """Says what a concept is to look like."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAReferences",
            "BlockLoRA References",
            description="Pictures of one concept to compare with in Evaluate. Chain one node for each concept.",
            search_aliases=["evaluation", "ground truth"],
            inputs=[
                io.String.Input("concept", default="<hero>", tooltip="The concept's name, as in its file and in prompts."),
                io.String.Input("class_word", default="", tooltip="The ordinary word for its class, such as man. Text alignment and class drift need it."),
                io.Image.Input("images", tooltip="Pictures of the concept, best not those that it was trained on."),
                ReferencesType.Input("references", optional=True, tooltip="References of other concepts, or more of this one."),
            ],
            outputs=[ReferencesType.Output(display_name="references", tooltip="These and those that came in.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, concept: str, class_word: str, images: torch.Tensor, references: References = ()) -> io.NodeOutput:
        name = Concept(concept.strip()).name
        return io.NodeOutput(with_reference(references, Reference(name, class_word.strip(), (images[..., :3],))))


class BlockLoRAEvaluate(io.ComfyNode):
    """Samples every concept alone and merged, and scores the pictures as the papers do."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAEvaluate",
            "BlockLoRA Evaluate",
            description="Measures whether merged concepts keep their identity: samples each alone and in merges, and scores the pictures.",
            search_aliases=["benchmark", "clip score", "alignment", "confusion matrix"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The base model, without concepts."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                StackType.Input("stack", tooltip="The concepts to evaluate, with their strengths."),
                *_clip_inputs(),
                io.Combo.Input("method", options=["auto", *METHODS], default="auto", tooltip="How to merge, as in BlockLoRA Merge."),
                io.Combo.Input("overlap", options=list(get_args(Overlap)), default="error", tooltip="When two files hold the same rows, as in BlockLoRA Merge."),
                io.String.Input(
                    "prompts", default="\n".join(PROMPTS), multiline=True,
                    tooltip="One a line; {concept} stands for each one's trigger words. Empty takes the prompts shown at first.",
                ),
                io.Int.Input("pictures", default=20, min=1, max=1000, tooltip="Of each concept in each setting, with the prompts in turn. The papers take 1000."),
                io.String.Input("counts", default="all", tooltip="How many concepts to merge, such as 1, 3, all. Each measures a merge of that many."),
                io.Boolean.Input("drift", default=True, tooltip="Also sample the class words, with the base and each merge: how far the merge moves the class."),
                io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps. The papers take 20."),
                io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.1, tooltip="Guidance. The papers take 7.5."),
                io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="dpmpp_2m", tooltip="The papers take a DPM-Solver."),
                io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="normal", tooltip="How noise is removed step by step."),
                io.Int.Input("size", default=512, min=8, max=4096, step=8, tooltip="Height and width of the pictures: the model's usual size."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False,
                    tooltip="Of the noise, and of which concepts a smaller merge takes. The same seed gives the same report.",
                ),
                advanced(io.Int, "batch", default=4, min=1, max=64, optional=True, tooltip="Pictures sampled at a time. Less takes less memory."),
                *option_inputs(),
            ],
            outputs=_outputs("The pictures of the largest merge, concept by concept."),
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, stack: Stack, references: References, clip_vision: Any, method: str,
        overlap: Overlap, prompts: str, pictures: int, counts: str, drift: bool, steps: int, cfg: float,
        sampler_name: str, scheduler: str, size: int, seed: int, text_clip: Any = None, batch: int = 4, **options: Any,
    ) -> io.NodeOutput:  # fmt: skip
        job = EvaluateJob(
            prompts=prompts.splitlines(),
            pictures=pictures,
            counts=parse_counts(counts, len(stack)),
            drift=drift,
            method=method,
            overlap=overlap,
            options=Options(**options),
            sampling=Sampling(
                steps=steps, cfg=cfg, sampler=sampler_name, scheduler=scheduler, size=size, seed=seed, batch=batch
            ),
        )
        callback = NodeProgress(cls.hidden.unique_id, steps)
        embedder = ClipEmbedder(clip_vision, text_clip)
        found = evaluate(
            (model, clip, vae), stack=stack, references=references, embedder=embedder, job=job, callback=callback
        )
        return _output(found.evaluation, torch.cat([*found.pictures.values()]).float() / 255)


class BlockLoRAEvaluatePictures(io.ComfyNode):
    """Scores pictures that any graph made."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAEvaluatePictures",
            "BlockLoRA Evaluate Pictures",
            description="Scores pictures of any graph against references and prompts, whole or box by box.",
            search_aliases=["benchmark", "clip score", "alignment", "regions"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures to score."),
                *_clip_inputs(),
                io.String.Input("concepts", default="", multiline=True, tooltip="The concept that each whole picture shows, one a line, or one for all. Empty scores boxes only."),
                io.String.Input("prompts", default="", multiline=True, tooltip="The prompt of each picture, one a line, or one for all; {concept} stands for the concept. Empty takes: a {concept}"),
                io.String.Input(
                    "boxes", default="", multiline=True,
                    tooltip="A box a line, in each picture: x, y, width, height, <concept>, prompt. Shares of the picture from 0 to 1, or pixels.",
                ),
            ],
            outputs=_outputs("What was scored, cut to the square that CLIP sees."),
        )  # fmt: skip

    @classmethod
    def execute(
        cls, images: torch.Tensor, references: References, clip_vision: Any, concepts: str, prompts: str, boxes: str,
        text_clip: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        shown = [*whole_pictures(_lines(concepts), _lines(prompts), len(images)), *parse_boxes(boxes)]
        embedder = ClipEmbedder(clip_vision, text_clip)
        evaluation, parts = evaluate_pictures(images[..., :3], shown, references, Judge(embedder, references))
        return _output(with_notes(evaluation, embedder.notes), torch.cat([as_seen(part) for part in parts]))


def _lines(given: str) -> Sequence[str]:
    return [line.strip() for line in given.splitlines() if line.strip()]


NODES = [BlockLoRAReferences, BlockLoRAEvaluate, BlockLoRAEvaluatePictures]
