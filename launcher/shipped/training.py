"""Templates that train."""

from __future__ import annotations

from .blocks import TRAIN
from .parts import BASE, KEPT, MERGED, PICTURE, REPORT, SCENE, box, first, sampling, scene
from .story import Column, Node, Story

TRAINING = "2  Teach it a person"
MERGED_INTO = Node(
    "merge", "BlockLoRAMerge", (300, 260), {**BASE, "stack": ("trained", "stack")}, title="Into the model", grows=REPORT
)

ONE = Story(
    "Train a Person",
    (
        first(
            """
## Ten pictures, one name

**You need**: 10 to 25 pictures of one person, animal or thing. Drop them onto *Pictures*.

**Change**: the name (*concept*, such as &lt;hero&gt;), also in the prompt, and the ordinary word for it (*class word*:
woman, dog, mug). Then Run. Stop when you like it: what was learnt is kept, and the same run goes on from there.

The file goes to *models/loras/blocklora*.
""",
            Node(
                "images", "BlockLoRAImages", (320, 380), values={"folder": "my person"}, title="Pictures", grows=REPORT
            ),
            title="1  Your checkpoint, your pictures",
            lines=330,
        ),
        Column(
            TRAINING,
            (
                Node(
                    "train",
                    "BlockLoRATrain",
                    (360, 620),
                    {
                        **BASE,
                        "vae": ("base", "VAE"),
                        "images": ("images", "images"),
                        "captions": ("images", "captions"),
                        "masks": ("images", "masks"),
                    },
                    {"concept": "<hero>", "class_word": "person"},
                    "Train",
                    500,
                ),
            ),
        ),
        Column(
            "3  Keep it, and say what to show",
            (
                Node(
                    "trained", "BlockLoRASave", (300, 160), {"stack": ("train", "stack")}, KEPT, "Save the LoRA", REPORT
                ),
                MERGED_INTO,
            ),
        ),
        Column("", (scene("What to show", (512, 512), "<hero> in a garden, photo", [], MERGED),)),
        sampling(PICTURE, SCENE, "trained"),
    ),
)


def _training(key: str, name: str, kind: str, folder: str) -> Node:
    values = {"folder": folder, "concept": name, "class_word": kind}
    return Node(key, TRAIN.title, TRAIN.size, {**BASE, "vae": ("base", "VAE")}, values)


PAIR = Story(
    "Train Two People, Then Both",
    (
        first("""
## Trained apart, together in one picture

**You need**: two folders of 10 to 25 pictures, one for each person, in ComfyUI's *input* folder: copy them there, then
press R, and they are in the lists.

**Change**: *folder*, *concept* (the name) and *class word* of both. Then Run: they are trained one after the other,
saved, merged, and painted into one picture. Open a *Train a person* (the button on it) to see all settings, and the
loss as it falls.
"""),
        Column(
            "2  Teach it two people",
            (_training("one", "<ada>", "woman", "ada"), _training("other", "<ben>", "man", "ben")),
        ),
        Column(
            "3  Both into one model",
            (
                Node(
                    "trained",
                    "BlockLoRAStack",
                    (300, 430),
                    {"stack_1": ("one", "stack"), "stack_2": ("other", "stack")},
                    title="Both",
                ),
                MERGED_INTO,
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
        sampling("5  The picture", SCENE, "two trained people"),
    ),
    (TRAIN,),
)
