"""Several concepts in one picture."""

from . import composer, regions, sampling_modes

NODES = [*sampling_modes.NODES, *regions.NODES, *composer.NODES]
