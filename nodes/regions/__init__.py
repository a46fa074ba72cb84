"""Several concepts in one picture."""

from . import composer, regions, sampling_modes, scene

NODES = [*scene.NODES, *sampling_modes.NODES, *regions.NODES, *composer.NODES]
