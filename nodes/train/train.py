"""The training node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...blocklora_core.concept.concept import BlockLoRA, Concept
from ...blocklora_core.concept.rows import MOST_SLOTS
from ...blocklora_core.host.train.layers import LAYER_CHOICES
from ...blocklora_core.host.train.live.board import BOARD
from ...blocklora_core.host.train.live.run import TrainResult
from ...blocklora_core.host.train.precision import AUTO, PRECISIONS
from ...blocklora_core.host.train.progress import to_image
from ...blocklora_core.host.train.train import AUTO_SLOT, TrainJob, train_concept
from ...blocklora_core.reports.curves import loss_curve
from ...blocklora_core.reports.words import counted
from ...blocklora_core.training import ADAPTERS, AS_SET, PRESETS, TOKENS, TrainConfig, TrainSettings
from ...blocklora_core.training.regularisers.erasure import Erasure
from ..schema import SettingsType, StackType, advanced, first, schema, shown, workflow_id

DEFAULTS = TrainConfig()


def _work(result: TrainResult) -> list[str]:
    """What this run did."""
    done = len(result.losses)
    if result.kept:
        return [
            f"Nothing was trained: an earlier run of the very same inputs made {done} steps on {counted(result.pictures, 'picture')}, and "
            "this is its result. train_again trains anew.",
        ]
    here = done - result.resumed
    lines = [
        f"{done} steps on {counted(result.pictures, 'picture')}; {here} of them now, in {result.seconds:.0f} s ({result.seconds / max(here, 1):.2f} s a step)",
        result.note or f"Grams for fused merging collected in {result.gram_seconds:.1f} s",
    ]
    if result.stopped:
        lines.append(f"Stopped and kept before its {result.steps} steps were made: Resume on the node makes the rest")
    if result.resumed:
        lines.insert(0, f"Resumed after step {result.resumed} of the very same run, which had been broken off")
    if result.snapshots:
        lines.append(f"{len(result.snapshots)} snapshots in {result.snapshots[0].parent}")
    return lines if result.memory is None else [*lines, str(result.memory)]


def _held(lora: BlockLoRA) -> str:
    return f"slot {lora.slot} of {lora.scheme.slots}" if lora.scheme else "all rows, no slot"


def _report(result: TrainResult) -> str:
    lora, tail = result.lora, result.losses[-20:]
    lines = [
        f"{lora.concept.name} ({lora.concept.class_word or 'no class word'}) on {lora.base}: {_held(lora)}",
        *_work(result),
        f"{result.layers} layers adapted, {result.share:.0%} of the model's linear weights; loss over the last {len(tail)} steps {sum(tail) / len(tail):.4f}",
    ]
    if any(result.niche_losses):
        niche = result.niche_losses[-20:]
        lines.append(f"niche: distance from the base on other prompts {sum(niche) / len(niche):.5f}")
    return "\n".join(lines)


def _preset_input() -> Any:
    made = io.Combo.Input(
        "preset",
        options=list(PRESETS),
        default=AS_SET,
        optional=True,
        tooltip="How much work: quick to see whether it goes well, standard, careful for the final one; sets steps, embedding_share, preview_every and the pictures for Grams. What Train Settings change goes before it.",
    )
    # The panel shows what a preset sets. Older hosts take this in no other way.
    made.extra_dict = {"presets": {name: dict(chosen.fields) for name, chosen in PRESETS.items()}}
    return made


def _concept_inputs() -> list[Any]:
    """The frozen model, and what is taught."""
    return [
        io.Model.Input("model", tooltip="The base model. It stays frozen."),
        io.Clip.Input("clip", tooltip="The base model's text encoder. It stays frozen; only the concept's token is learnt."),
        io.Vae.Input("vae", tooltip="The base model's VAE, to encode the pictures once."),
        io.Image.Input("images", tooltip="Pictures of the concept; about 10 to 25 are enough. Sizes may differ."),
        io.String.Input("captions", force_input=True, tooltip="One caption for each picture, or one for all."),
        io.String.Input("concept", default="<hero>", tooltip="The name you will write in prompts. Brackets keep it apart from words."),
        io.String.Input("class_word", default="person", tooltip="The ordinary word for what the concept is: man, dog, house."),
        io.Int.Input(
            "slot", default=AUTO_SLOT, min=AUTO_SLOT, max=MOST_SLOTS - 1,
            tooltip="Which row block to train into. -1 takes the lowest that no file in your loras folder holds for this base.",
        ),
    ]  # fmt: skip


def _recipe_inputs() -> list[Any]:
    """How it is taught."""
    return [
        io.Int.Input("steps", default=DEFAULTS.steps, min=1, max=100000, tooltip="Training steps."),
        io.Int.Input("batch_size", default=DEFAULTS.batch_size, min=1, max=64, tooltip="Pictures a step. Lower it when memory runs out."),
        io.Int.Input("rank", default=DEFAULTS.adapter.rank, min=1, max=256, tooltip="Rank of the change. 4 is the papers' choice."),
        io.Float.Input(
            "learning_rate", default=DEFAULTS.optimizer.learning_rate, min=0.0, max=1.0, step=0.00001, round=False,
            tooltip="Learning rate of the row block; falls to zero over the steps.",
        ),
        io.Float.Input(
            "erasure", default=DEFAULTS.erasure.probability, min=0.0, max=0.95, step=0.05,
            tooltip="Randomized Output Erasure: share of the block's outputs erased at each step. 0 turns it off.",
        ),
        io.Float.Input(
            "niche", default=DEFAULTS.niche.weight, min=0.0, max=10.0, step=0.1,
            tooltip="Niche regularisation: keeps the block silent for prompts that do not name the concept. 0 turns it off.",
        ),
        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, tooltip="Same inputs and seed, same file."),
    ]  # fmt: skip


def _finer_inputs() -> list[Any]:
    """Of that, what seldom needs another value."""
    return [
        advanced(
            io.Float, "embedding_learning_rate", default=DEFAULTS.token.learning_rate, min=0.0, max=1.0, step=0.00001,
            round=False, optional=True, tooltip="Learning rate of the concept's token.",
        ),
        advanced(
            io.Float, "embedding_share", default=DEFAULTS.token.share, min=0.0, max=1.0, step=0.05, optional=True,
            tooltip="Share of the steps in which the token learns. Once it rests, each step is quicker.",
        ),
        advanced(
            io.Int, "resolution", default=512, min=0, max=4096, step=8, optional=True,
            tooltip="Larger pictures are scaled down to about this many pixels squared. 0 leaves every size.",
        ),
        advanced(
            io.Int, "preview_every", default=DEFAULTS.preview.every, min=0, max=100000, optional=True,
            tooltip="A sample picture every this many steps. 0 for none.",
        ),
        advanced(
            io.Combo, "layers", options=list(LAYER_CHOICES), default="attention", optional=True,
            tooltip="Which layers learn. Feed-forward layers add detail, a third more time and a larger file; convolutions still more.",
        ),
        advanced(
            io.Combo, "precision", options=[AUTO, *PRECISIONS], default=AUTO, optional=True,
            tooltip="In what the frozen model computes. auto takes bf16 where the device is quick at it.",
        ),
    ]  # fmt: skip


def _optional_inputs() -> list[Any]:
    """What a run can do without."""
    return [
        io.Mask.Input(
            "masks", optional=True,
            tooltip="Where the concept is, one for each picture. Only there does the loss look. Without it, everywhere.",
        ),
        advanced(
            io.Boolean, "checkpointing", default=False, optional=True,
            tooltip="Gradient checkpointing: each step takes less memory and about a third more time. What is learnt is the same.",
        ),
        SettingsType.Input("settings", optional=True, tooltip="From BlockLoRA Train Settings: optimizer, schedule, captions, saving and more. Good defaults without it."),
        advanced(
            io.Boolean, "resume", default=True, optional=True,
            tooltip="Go on where the very same run was cancelled or broke off; it ends as if it had never stopped. Off starts anew.",
        ),
        advanced(
            io.Boolean, "train_again", default=False, optional=True,
            tooltip="Train even if the very same run was trained to its end before. Off takes what it learnt then.",
        ),
        advanced(
            io.String, "layer_pattern", default="", optional=True,
            tooltip=r"A regular expression on weight names, such as attn2\.to_[kv], in place of the choice in layers.",
        ),
        advanced(
            io.Combo, "adapter", options=list(ADAPTERS), default=next(iter(ADAPTERS)), optional=True,
            tooltip="What learns: the slot's rows, every row, or every row with half of the change fixed beforehand. See the help page.",
        ),
        advanced(
            io.Combo, "token", options=list(TOKENS), default=DEFAULTS.token.kind, optional=True,
            tooltip="What the name becomes: one pair of vectors, a pair for each cross-attention layer (ED-LoRA; SD1.5, SDXL), which learns more but fits no embedding file, or a mere trigger word. auto: a pair for each on SD1.5, else one.",
        ),
        _preset_input(),
    ]  # fmt: skip


class BlockLoRATrain(io.ComfyNode):
    """Trains one concept into its own row block."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRATrain",
            "BlockLoRA Train",
            description="Teaches the model one concept in its own row block of the weights, so that it merges with others.",
            search_aliases=["train lora", "dreambooth", "row block"],
            is_input_list=True,
            # So that the panel's Start can queue this node alone.
            is_output_node=True,
            inputs=[*_concept_inputs(), *_recipe_inputs(), *_finer_inputs(), *_optional_inputs()],
            outputs=[
                StackType.Output(display_name="stack", tooltip="The trained concept, a stack of one: save it, join it, merge it."),
                io.String.Output(display_name="report", tooltip="What was trained, how long it took, how it ended."),
                io.Image.Output(display_name="curve", tooltip="The loss curve with the last sample."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, images: list[Any], captions: list[str], masks: list[Any] | None = None, **inputs: Any
    ) -> io.NodeOutput:
        one = {name: value[0] for name, value in inputs.items()}
        config = TrainConfig.of(
            steps=one["steps"],
            batch_size=one["batch_size"],
            rank=one["rank"],
            learning_rate=one["learning_rate"],
            embedding_learning_rate=one.get("embedding_learning_rate", DEFAULTS.token.learning_rate),
            token=one.get("token", DEFAULTS.token.kind),
            embedding_share=one.get("embedding_share", DEFAULTS.token.share),
            erasure=Erasure(one["erasure"]),
            niche_weight=one["niche"],
            preview_every=one.get("preview_every", DEFAULTS.preview.every),
            seed=one["seed"],
            **ADAPTERS[one.get("adapter", next(iter(ADAPTERS)))],
        )
        config = PRESETS[one.get("preset", AS_SET)].apply(config)
        settings = one.get("settings") or TrainSettings()
        job = TrainJob(
            concept=Concept(one["concept"].strip(), one["class_word"].strip()),
            images=images,
            captions=captions,
            config=settings.apply(config),
            slot=one["slot"],
            resolution=one.get("resolution", 512),
            layers=one.get("layers", "attention"),
            precision=one.get("precision", AUTO),
            checkpointing=one.get("checkpointing", False),
            node_id=cls.hidden.unique_id,
            workflow=workflow_id(cls),
            masks=masks or (),
            resume=one.get("resume", True),
            again=one.get("train_again", False),
            layer_pattern=one.get("layer_pattern", "").strip(),
        )
        result = train_concept(one["model"], one["clip"], one["vae"], job)
        report = _report(result)
        curve = loss_curve(result.losses, job.config.steps, job.concept.name, result.samples)
        return io.NodeOutput(
            (result.lora,), report, to_image(curve), ui=shown(report, (result.lora,), filter(None, [result.note]))
        )

    @classmethod
    def fingerprint_inputs(cls, concept: Any = "", **_others: Any) -> int:
        """Changes when the panel told this concept's training to go on, or to end as it is."""
        return BOARD.turns.get(str(first(concept)).strip(), 0)


NODES = [BlockLoRATrain]
