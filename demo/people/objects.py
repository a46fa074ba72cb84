"""Animals and things to draw beside people or alone: the word, and the icon's name in both emoji sets."""

from __future__ import annotations

import zlib

# Word in captions for the set that draws it.
ICON_SETS = {"noto": "glossy", "twemoji": "flat"}

ANIMALS = {
    "cat": "cat-face", "dog": "dog-face", "tiger": "tiger-face", "rabbit": "rabbit-face", "pig": "pig-face",
    "frog": "frog", "panda": "panda", "lion": "lion", "fox": "fox", "penguin": "penguin", "bear": "bear",
    "monkey": "monkey-face", "cow": "cow-face", "mouse": "mouse-face", "owl": "owl", "chick": "hatching-chick",
    "duck": "duck", "elephant": "elephant", "turtle": "turtle", "octopus": "octopus", "whale": "spouting-whale",
    "fish": "tropical-fish", "bee": "honeybee", "ladybug": "lady-beetle", "butterfly": "butterfly", "snail": "snail",
    "unicorn": "unicorn", "koala": "koala", "hedgehog": "hedgehog", "parrot": "parrot",
}  # fmt: skip

THINGS = {
    "tulip": "tulip", "sunflower": "sunflower", "cactus": "cactus", "tree": "deciduous-tree", "mushroom": "mushroom",
    "apple": "red-apple", "pear": "pear", "banana": "banana", "strawberry": "strawberry", "lemon": "lemon",
    "watermelon": "watermelon", "pineapple": "pineapple", "pizza": "pizza", "hamburger": "hamburger",
    "cupcake": "cupcake", "donut": "doughnut", "house": "house", "car": "automobile", "rocket": "rocket",
    "star": "star", "heart": "red-heart", "snowman": "snowman", "balloon": "balloon", "guitar": "guitar",
    "trumpet": "trumpet", "ball": "soccer-ball", "gift": "wrapped-gift", "book": "closed-book",
    "clock": "alarm-clock", "crown": "crown", "hat": "top-hat", "umbrella": "umbrella", "key": "key",
    "cup": "hot-beverage", "robot": "robot", "ghost": "ghost", "bicycle": "bicycle", "boat": "sailboat",
    "train": "locomotive",
}  # fmt: skip

ICONS = {**ANIMALS, **THINGS}
HELD_OUT_SHARE = 6


def is_held_out(word: str) -> bool:
    """The rule that keeps about one object in six out of training."""
    return zlib.crc32(word.encode()) % HELD_OUT_SHARE == 0


TRAINED = tuple(word for word in ICONS if not is_held_out(word))
HELD_OUT = tuple(word for word in ICONS if is_held_out(word))
