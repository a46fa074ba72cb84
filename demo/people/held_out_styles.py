"""The styles that training never shows. Two of them name their parts by number: captions say little about those."""

from __future__ import annotations

from demo.people.genes import Style
from demo.people.style_values import optional, values

BIG_SMILE = Style(
    package="big-smile",
    word="bigsmile",
    identity={
        "hair": values("hair", {
            "wavyBob": "a wavy {} bob", "bunHair": "a {} bun", "braids": "{} braids", "straightHair": "long {} hair",
        }, "woman")
        | values("hair", {"shortHair": "short {} hair", "mohawk": "a {} mohawk", "bowlCutHair": "a {} bowl cut"}),
        "glasses": optional("accessories", {"glasses": "glasses", "sunglasses": "sunglasses"}, none=0.5),
    },
    varying={
        "expression": values("mouth", {
            "openedSmile": "laughing", "unimpressed": "calm", "openSad": "sad", "teethSmile": "grinning",
        }),
        "eyes": values("eyes", {"cheery": "happy eyes", "normal": "", "winking": "a wink", "sleepy": "sleepy eyes"}),
    },
    fixed={},
    colours={"hairColor": "hair_colour", "skinColor": "skin"},
)  # fmt: skip

LORELEI = Style(
    package="lorelei",
    word="lorelei",
    identity={
        "hair": values("hair", {f"variant{number:02d}": "" for number in range(1, 49)}, "person"),
        "facial_hair": optional("beard", {"variant01": "a beard", "variant02": "a beard"}, none=0.8),
        "glasses": optional("glasses", {f"variant{number:02d}": "glasses" for number in (1, 2, 3)}, none=0.6),
        "nose": values("nose", {f"variant{number:02d}": "" for number in range(1, 7)}),
        "head": values("head", {f"variant{number:02d}": "" for number in range(1, 5)}),
    },
    varying={
        "expression": values("mouth", {f"happy{number:02d}": "smiling" for number in range(1, 19)})
        | values("mouth", {f"sad{number:02d}": "sad" for number in range(1, 10)}),
        "eyes": values("eyes", {f"variant{number:02d}": "" for number in range(1, 25)}),
        "brows": values("eyebrows", {f"variant{number:02d}": "" for number in range(1, 14)}),
    },
    fixed={"earringsProbability": 0, "frecklesProbability": 0, "hairAccessoriesProbability": 0},
    colours={},
)

NOTIONISTS = Style(
    package="notionists",
    word="notionists",
    identity={
        "hair": values("hair", {f"variant{number:02d}": "" for number in range(1, 64)}, "person"),
        "facial_hair": optional("beard", {f"variant{number:02d}": "a beard" for number in range(1, 13)}, none=0.8),
        "glasses": optional("glasses", {f"variant{number:02d}": "glasses" for number in range(1, 12)}, none=0.7),
        "nose": values("nose", {f"variant{number:02d}": "" for number in range(1, 21)}),
    },
    varying={
        "mouth": values("lips", {f"variant{number:02d}": "" for number in range(1, 31)}),
        "eyes": values("eyes", {f"variant{number:02d}": "" for number in range(1, 6)}),
        "brows": values("brows", {f"variant{number:02d}": "" for number in range(1, 14)}),
        "clothes": values("body", {f"variant{number:02d}": "" for number in range(1, 26)}),
    },
    fixed={"bodyIconProbability": 0, "gestureProbability": 0},
    colours={},
)
