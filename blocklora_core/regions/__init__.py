"""Regions of a picture: their shapes, how they overlap, and attention within them."""

from .attention import Attend, KeysValues, Part, Plan, plan, regional_attention
from .joint import Texts, joint_bias, longest
from .layout import OVERLAP_RULES, Layout, OverlapRule, Size, bounds, cells_of, layout, mask_of
from .region import MOST_WEIGHT, Box, Region, Regions, Shape, check_regions

__all__ = [
    "MOST_WEIGHT",
    "OVERLAP_RULES",
    "Attend",
    "Box",
    "KeysValues",
    "Layout",
    "OverlapRule",
    "Part",
    "Plan",
    "Region",
    "Regions",
    "Shape",
    "Size",
    "Texts",
    "bounds",
    "cells_of",
    "check_regions",
    "joint_bias",
    "layout",
    "longest",
    "mask_of",
    "plan",
    "regional_attention",
]
