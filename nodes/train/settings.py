"""The settings of a training that most people never need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ...blocklora_core.concept.rows import MOST_SLOTS, Scheme
from ...blocklora_core.training import TrainConfig, TrainSettings
from ...blocklora_core.training.data.captions import TEMPLATES, CaptionRules
from ...blocklora_core.training.optimisation.optimizers import OPTIMIZERS
from ...blocklora_core.training.optimisation.schedules import SCHEDULES
from ...blocklora_core.training.weighting import WEIGHTINGS
from ..schema import SettingsType, schema

DEFAULTS = TrainConfig().flat()
RULES, ERASURE = DEFAULTS["captions"], DEFAULTS["erasure"]


def _whole(name: str, least: int, most: int, tooltip: str) -> Any:
    return io.Int.Input(name, default=DEFAULTS[name], min=least, max=most, tooltip=tooltip)


def _number(name: str, most: float, step: float, tooltip: str) -> Any:
    return io.Float.Input(name, default=DEFAULTS[name], min=0.0, max=most, step=step, round=False, tooltip=tooltip)


def _choice(name: str, table: Any, tooltip: str) -> Any:
    return io.Combo.Input(name, options=list(table), default=DEFAULTS[name], tooltip=tooltip)


def _optimizer_inputs() -> list[Any]:
    return [
        _choice(
            "optimizer",
            OPTIMIZERS,
            "What turns gradients into weights. All but adamw need a Python package; the error says which. prodigy finds the rate itself: both learning rates 1.",
        ),
        _choice(
            "scheduler", SCHEDULES, "What becomes of the learning rates over the steps. schedulefree needs constant."
        ),
        _whole("warmup_steps", 0, 100000, "Steps in which the rates climb to what they are set to."),
        _whole("scheduler_cycles", 1, 1000, "Cycles of cosine_restarts."),
        _whole(
            "accumulation", 1, 1024, "Batches that make one step together: a larger batch in the memory of a small one."
        ),
        _number("max_grad_norm", 1000.0, 0.1, "Gradients longer than this are shortened to it. 0 leaves them."),
        _number("weight_decay", 1.0, 0.001, "Pulls what is learnt towards zero."),
        _number(
            "ema_decay",
            0.9999,
            0.0001,
            "Takes a running average of the weights, 0.99 for some hundred steps. 0 takes the last ones.",
        ),
    ]


def _loss_inputs() -> list[Any]:
    return [
        _choice("weighting", WEIGHTINGS, "How much each noise level counts: as the model was trained, or min-SNR."),
        _number("snr_gamma", 100.0, 0.5, "Gamma of min_snr. Its paper has 5."),
        _number(
            "noise_offset",
            1.0,
            0.01,
            "Adds noise that is the same all over the picture, so that light and dark are learnt, too.",
        ),
    ]


def _block_inputs() -> list[Any]:
    return [
        _number("embedding_norm_limit", 1000.0, 0.05, "The concept's token rests once it is as long as this, on average, for SD1.5; in proportion where words are longer."),
        io.Boolean.Input("erasure_per_sample", default=ERASURE.per_sample, tooltip="Erasure draws a mask for each picture instead of one for the batch."),
        io.Boolean.Input("erasure_rescale", default=ERASURE.rescale, tooltip="What erasure leaves is made stronger by as much, as dropout does."),
        _number("niche_share", 1.0, 0.05, "Share of each batch that niche regularisation repeats with a prompt that is not the concept's; at least one picture."),
        _whole("niche_negatives", 1, 1000, "How many such prompts with another random token are kept in store."),
        io.Boolean.Input("niche_class_word", default=DEFAULTS["niche_class_word"], tooltip="The class word alone is such a prompt too."),
        io.String.Input("niche_captions", default="", multiline=True, tooltip="Further prompts, one a line, on which the model shall stay as it is: other people, other things."),
        _whole("gram_pictures", 1, 64, "Pictures sampled at the end, to collect the Grams that fused merging needs."),
        _whole("gram_steps", 1, 1000, "Sampler steps of each of them."),
    ]  # fmt: skip


def _further_inputs() -> list[Any]:
    return [
        _number("text_learning_rate", 1.0, 0.00001, "The text encoders learn too, in the same kind of layers. 0 leaves them; a tenth of Train's learning_rate is usual."),
        _whole("prior_pictures", 0, 1000, "Prior preservation: the base makes this many pictures of the class word first, and they are learnt along. 0 for none; 50 is usual."),
        _number("prior_weight", 10.0, 0.1, "How much the loss of those pictures counts."),
        _number("attention_weight", 1.0, 0.01, "Attention regularisation: outside the masks, nothing may look at the concept's token. Needs masks; 0.01 is Mix-of-Show's. 0 turns it off."),
        io.Int.Input("slots", default=Scheme().slots, min=1, max=MOST_SLOTS, tooltip="How many row blocks there are: so many concepts merge freely, if all are trained with one number."),
    ]  # fmt: skip


def _caption_inputs() -> list[Any]:
    return [
        io.Float.Input("caption_dropout", default=RULES.dropout, min=0.0, max=1.0, step=0.05, tooltip="Share of uses in which a picture has no caption."),
        io.Boolean.Input("caption_shuffle", default=RULES.shuffle, tooltip="Parts between commas come in another order each time; the first stays in front."),
        io.Combo.Input("caption_template", options=list(TEMPLATES), default=RULES.template, tooltip="Wraps each caption in a phrase such as 'a photo of': choose what the concept is."),
    ]  # fmt: skip


def _emphasis_input() -> Any:
    return io.Boolean.Input(
        "caption_emphasis",
        default=RULES.emphasis,
        optional=True,
        tooltip="Brackets in captions weigh words, as (red:1.2) does in prompts. Off: they are just brackets.",
    )


def _keeping_inputs() -> list[Any]:
    return [
        io.String.Input("sample_prompt", default=DEFAULTS["sample_prompt"], tooltip="What the sample pictures show; name the concept in it. Empty shows the concept alone."),
        _whole("preview_steps", 1, 1000, "Sampler steps of a sample picture."),
        _number("preview_cfg", 30.0, 0.5, "Guidance of a sample picture."),
        _whole("save_every", 0, 100000, "A LoRA and the state to resume from are saved every this many steps. 0 saves them only when the training is cancelled or fails."),
    ]  # fmt: skip


class BlockLoRATrainSettings(io.ComfyNode):
    """Settings beyond those of the Train node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRATrainSettings",
            "BlockLoRA Train Settings",
            description="Optimizer, schedule, loss, captions, samples and saving of BlockLoRA Train. Good defaults without it.",
            search_aliases=["optimizer", "scheduler", "train settings"],
            inputs=[
                *_optimizer_inputs(), *_loss_inputs(), *_block_inputs(), *_further_inputs(), *_caption_inputs(),
                *_keeping_inputs(), _emphasis_input(),
            ],
            outputs=[SettingsType.Output(display_name="settings", tooltip="To the settings input of BlockLoRA Train.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        erasure_per_sample: bool,
        erasure_rescale: bool,
        caption_dropout: float,
        caption_shuffle: bool,
        caption_template: str,
        sample_prompt: str,
        niche_captions: str,
        slots: int,
        caption_emphasis: bool = False,
        **fields: Any,
    ) -> io.NodeOutput:
        rules = CaptionRules(caption_dropout, caption_shuffle, caption_template, caption_emphasis)
        prompts = tuple(line.strip() for line in niche_captions.splitlines() if line.strip())
        fields = {**fields, "captions": rules, "sample_prompt": sample_prompt.strip(), "niche_captions": prompts}
        fields["scheme"] = Scheme(slots=slots)
        erasure = {"per_sample": erasure_per_sample, "rescale": erasure_rescale}
        return io.NodeOutput(TrainSettings(_changed(fields, DEFAULTS), _changed(erasure, vars(ERASURE))))


def _changed(given: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults: the rest is left to Train."""
    return {name: value for name, value in given.items() if value != defaults[name]}


NODES = [BlockLoRATrainSettings]
