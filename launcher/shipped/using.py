"""Templates for LoRAs that people have: they run without any, too, but the last."""

from __future__ import annotations

from .parts import BASE, BOXES, LOADED, NEGATIVE, PICTURE, REPORT, SCENE, box, first, loader, sampling, scene
from .story import Column, Node, Story

LORAS = "2  Your LoRAs, one a row"
CANVAS = "3  Draw where each one stands"

MERGE = Story(
    "Merge What You Have",
    (
        first("""
## Any number of LoRAs, kept apart

**You need**: LoRA files of this checkpoint's kind, of any trainer, in *models/loras*. Without any it runs as well.

**Change**: add your files in *Your LoRAs*, and write their words into the prompt. The first run looks once at what
each file sees; later runs merge at once.

**Compare**: *keep apart* off is the plain sum of chained loaders.
"""),
        Column(LORAS, (loader(),)),
        Column(
            "3  What to show",
            (
                Node(
                    "prompt",
                    "CLIPTextEncode",
                    (360, 180),
                    {"clip": ("loader", "CLIP")},
                    {"text": "portrait of a woman in a garden, soft light"},
                    "Prompt: your LoRAs' words go here",
                ),
                Node(
                    "negative",
                    "CLIPTextEncode",
                    (360, 140),
                    {"clip": ("loader", "CLIP")},
                    {"text": NEGATIVE},
                    "Not this",
                ),
                Node("size", "EmptyLatentImage", (360, 140), title="Size"),
            ),
        ),
        sampling(
            PICTURE,
            {
                "model": ("loader", "MODEL"),
                "positive": ("prompt", "CONDITIONING"),
                "negative": ("negative", "CONDITIONING"),
                "latent_image": ("size", "LATENT"),
            },
            "merged",
        ),
    ),
)

TWO = Story(
    "Two People in Two Boxes",
    (
        first("""
## Two people, each with their own face

**You need**: two LoRAs. Without any, the boxes are painted from their words alone.

**Change**: add both files in *Your LoRAs*. Then click a box in the canvas, choose who stands in it, and say what
they do; drag boxes and their corners as you like. *{concept}* is the name, *{scene}* the prompt of the whole picture.
"""),
        Column(LORAS, (loader(),)),
        Column(
            CANVAS,
            (
                scene(
                    "Two boxes",
                    (768, 512),
                    "two friends in a sunny park, photo",
                    BOXES,
                    LOADED,
                ),
            ),
        ),
        sampling(PICTURE, SCENE, "two people"),
    ),
)

FIVE = Story(
    "Five People, One Picture",
    (
        first("""
## A whole group, a box for each

**You need**: a LoRA for each, up to five; boxes without one are painted from their words.

**Change**: add the files in *Your LoRAs*, choose a name for each box. More boxes than five work as well. Boxes that
overlap: the one in front wins (*Front*, *Back*).

**If a box stays empty**: set *mode* to composer, which pulls each concept into its box.
"""),
        Column(LORAS, (loader(),)),
        Column(
            CANVAS,
            (
                scene(
                    "Five boxes",
                    (1024, 448),
                    "five friends side by side on a beach, photo",
                    [
                        box(round(0.01 + 0.2 * number, 2), 0.08, 0.18, 0.92, f"{who}, {{scene}}")
                        for number, who in enumerate(
                            (
                                "a woman with red hair",
                                "a man with a grey beard",
                                "a girl in a yellow dress",
                                "a boy with a cap",
                                "a woman with black hair",
                            )
                        )
                    ],
                    LOADED,
                ),
            ),
        ),
        sampling(PICTURE, SCENE, "five people"),
    ),
)

STYLE = Story(
    "A Person in a Style",
    (
        first("""
## A style everywhere, a person in one place

**You need**: a LoRA of a person, and one of a style.

**Change**: add both in *Your LoRAs*. Write the style's words into the scene's prompt: they hold everywhere. Choose the
person for the box: there, the person's words are added. A style that has no words of its own goes behind *Your LoRAs*,
in a Load LoRA.
"""),
        Column(LORAS, (loader(),)),
        Column(
            CANVAS,
            (
                scene(
                    "One box, one style",
                    (640, 512),
                    "ink and watercolour drawing of an old harbour",
                    [box(0.3, 0.12, 0.4, 0.88, "a sailor, {scene}")],
                    LOADED,
                ),
            ),
        ),
        sampling(PICTURE, SCENE, "person in a style"),
    ),
)

CHECK = Story(
    "See Who Will Mix, Then Export",
    (
        first("""
## Before you merge: will they bleed into each other?

**You need**: two or more LoRAs of this checkpoint's kind.

**Change**: add them in *Your LoRAs*. *Inspect* tells who owns which rows, and how loudly each answers to the others'
prompts. *Export* writes all of them as one ordinary LoRA file, for any program that reads LoRAs. Its report says what
such a file cannot hold.
"""),
        Column(LORAS, (loader(),)),
        Column(
            "3  Look",
            (
                Node(
                    "inspect",
                    "BlockLoRAInspect",
                    (520, 560),
                    {**BASE, "stack": ("loader", "stack")},
                    {},
                    "Who will mix?",
                    REPORT,
                ),
            ),
        ),
        Column(
            "4  One file for all",
            (
                Node(
                    "export",
                    "BlockLoRAExport",
                    (340, 400),
                    {**BASE, "stack": ("loader", "stack")},
                    {"name": "blocklora/my merge"},
                    "Export",
                    REPORT,
                ),
            ),
        ),
    ),
)
