"""Regions of a picture: their shapes, how they overlap, and attention within them."""

from .layout import OVERLAP_RULES, Layout, OverlapRule, Size, bounds, cells_of, layout, mask_of
from .region import Box, Region, Regions, Shape, check_regions

__all__ = [
    "OVERLAP_RULES",
    "Box",
    "Layout",
    "OverlapRule",
    "Region",
    "Regions",
    "Shape",
    "Size",
    "bounds",
    "cells_of",
    "check_regions",
    "layout",
    "mask_of",
]
