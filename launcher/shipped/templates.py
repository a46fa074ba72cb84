"""The templates: stories that run on the user's own checkpoint."""

from __future__ import annotations

from .blocks import TRAIN
from .parts import BASE, LOADED, MERGED, NEGATIVE, SCENE, box, first, loader, sampling, scene
from .story import Column, Node, Story

LORAS = "2  Your LoRAs, one a row"
CANVAS = "3  Draw where each one stands"
PICTURE = "4  The picture"

MERGE = Story(
    "Merge What You Have",
    (
        first("""
## Any number of LoRAs, none of them mixed up

**You need**: LoRA files of this checkpoint's kind, of any trainer. Without any it runs as well.

**Change**: add your files in *Your LoRAs*, and write their words into the prompt. The first run looks once at what
each file sees; later runs merge at once.

**Compare**: `keep_apart` off is the plain sum of chained loaders.
"""),
        Column(LORAS, (loader(),)),
        Column(
            "3  What to show",
            (
                Node("prompt", "CLIPTextEncode", (360, 180), {"clip": ("loader", "CLIP")},
                     {"text": "portrait of a woman in a garden, soft light"}, "Prompt: your LoRAs' words go here"),
                Node("negative", "CLIPTextEncode", (360, 140), {"clip": ("loader", "CLIP")}, {"text": NEGATIVE}, "Not this"),
                Node("size", "EmptyLatentImage", (360, 140), title="Size"),
            ),
        ),
        *sampling(
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
)  # fmt: skip

TWO = Story(
    "Two People in Two Boxes",
    (
        first("""
## Two people, each with their own face

**You need**: two LoRAs. Without any, the boxes are painted from their words alone.

**Change**: add both files in *Your LoRAs*. Then click a box in the canvas, choose who stands in it, and say what
they do; drag boxes and their corners as you like. `{concept}` is the name, `{scene}` the prompt of the whole picture.
"""),
        Column(LORAS, (loader(),)),
        Column(
            CANVAS,
            (
                scene(
                    "Two boxes",
                    (768, 512),
                    "two friends in a sunny park, photo",
                    [
                        box(0.04, 0.1, 0.44, 0.9, "a woman with red hair, {scene}"),
                        box(0.52, 0.06, 0.44, 0.94, "a man with a grey beard, {scene}"),
                    ],
                    LOADED,
                ),
            ),
        ),
        *sampling(PICTURE, SCENE, "two people"),
    ),
)

FIVE = Story(
    "Five People, One Picture",
    (
        first("""
## A whole group, nobody blended

**You need**: a LoRA for each, up to five; boxes without one are painted from their words.

**Change**: add the files in *Your LoRAs*, choose a name for each box. More boxes than five work as well. Boxes that
overlap: the one in front, lower in the list, wins.

**If a box stays empty**: set `mode` to composer, which pulls each concept into its box.
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
                        for number, who in enumerate((
                            "a woman with red hair", "a man with a grey beard", "a girl in a yellow dress",
                            "a boy with a cap", "a woman with black hair",
                        ))
                    ],
                    LOADED,
                ),
            ),
        ),
        *sampling(PICTURE, SCENE, "five people"),
    ),
)  # fmt: skip

STYLE = Story(
    "A Person in a Style",
    (
        first("""
## A style everywhere, a person in one place

**You need**: a LoRA of a person, and one of a style.

**Change**: add both in *Your LoRAs*. Write the style's words into the scene's prompt: it holds everywhere. Choose the
person for the box: there, the person's words are added, and the style stays.
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
        *sampling(PICTURE, SCENE, "person in a style"),
    ),
)

TRAINING = "2  Teach it a person"

ONE = Story(
    "Train a Person",
    (
        first("""
## Ten pictures, one name

**You need**: 10 to 25 pictures of one person, animal or thing, in a folder below ComfyUI's `input`.

**Change**: the folder, the name (`concept`, such as `<hero>`) and the ordinary word for it (`class_word`: woman, dog,
mug). Then Run. Stop when you like it: what was learnt is kept, and the same run goes on from there.

The file goes to `models/loras/blocklora`.
"""),
        Column(
            TRAINING,
            (
                Node("images", "BlockLoRAImages", (340, 560), values={"folder": "my person"}, title="Pictures"),
            ),
        ),
        Column(
            "",
            (
                Node(
                    "train",
                    "BlockLoRATrain",
                    (420, 1000),
                    {
                        **BASE,
                        "vae": ("base", "VAE"),
                        "images": ("images", "images"),
                        "captions": ("images", "captions"),
                        "masks": ("images", "masks"),
                    },
                    {"concept": "<hero>", "class_word": "person"},
                    "Train",
                ),
            ),
        ),
        Column(
            "3  Keep it, and say what to show",
            (
                Node("trained", "BlockLoRASave", (460, 160), {"stack": ("train", "stack")}, {"if_exists": "overwrite"}, "Save to models/loras"),
                Node("merge", "BlockLoRAMerge", (460, 280), {**BASE, "stack": ("trained", "stack")}, title="Put it into the model"),
                scene("What to show", (512, 512), "<hero> in a garden, photo", [], MERGED),
            ),
        ),
        *sampling(PICTURE, SCENE, "trained"),
    ),
)  # fmt: skip


def _training(key: str, name: str, kind: str, folder: str) -> Node:
    values = {"folder": folder, "concept": name, "class_word": kind}
    return Node(key, TRAIN.title, TRAIN.room, {**BASE, "vae": ("base", "VAE")}, values)


PAIR = Story(
    "Train Two People, Then Both",
    (
        first("""
## Trained apart, together in one picture

**You need**: two folders of 10 to 25 pictures below ComfyUI's `input`, one for each person.

**Change**: folder, name and class word of both. Then Run: they are trained one after the other, saved, merged, and
painted into one picture. Double-click a *Train a Person* to see all settings and the loss as it falls.
"""),
        Column(
            "2  Teach it two people",
            (_training("one", "<ada>", "woman", "ada"), _training("other", "<ben>", "man", "ben")),
        ),
        Column(
            "3  Both into one model",
            (
                Node("trained", "BlockLoRAStack", (300, 460), {"stack_1": ("one", "stack"), "stack_2": ("other", "stack")}, title="Both"),
                Node("merge", "BlockLoRAMerge", (300, 280), {**BASE, "stack": ("trained", "stack")}, title="Merge"),
            ),
        ),
        Column(
            "4  Draw where each one stands",
            (
                scene(
                    "Two boxes",
                    (768, 512),
                    "two friends in a sunny park, photo",
                    [
                        box(0.04, 0.1, 0.44, 0.9, "a {concept}, {scene}", "<ada>"),
                        box(0.52, 0.06, 0.44, 0.94, "a {concept}, {scene}", "<ben>"),
                    ],
                    MERGED,
                ),
            ),
        ),
        *sampling("5  The picture", SCENE, "two trained people"),
    ),
    (TRAIN,),
)  # fmt: skip

CHECK = Story(
    "See Who Will Mix, Then Export",
    (
        first("""
## Before you merge: will they bleed into each other?

**You need**: two or more LoRAs of this checkpoint's kind.

**Change**: add them in *Your LoRAs*. *Inspect* tells who owns which rows, and how loudly each answers to the others'
prompts. *Export* writes all of them as one ordinary LoRA file, for any program that reads LoRAs.
"""),
        Column(LORAS, (loader(),)),
        Column(
            "3  Look",
            (Node("inspect", "BlockLoRAInspect", (560, 760), {"stack": ("loader", "stack")}, title="Who will mix?"),),
        ),
        Column(
            "4  One file for all",
            (
                Node("export", "BlockLoRAExport", (360, 620), {**BASE, "stack": ("loader", "stack")}, {"name": "blocklora/my merge"}, "Export"),
            ),
        ),
    ),
)  # fmt: skip

TEMPLATES = (MERGE, TWO, FIVE, STYLE, ONE, PAIR, CHECK)
