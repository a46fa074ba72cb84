"""What users drag into a graph."""

from . import (
    composer,
    dataset,
    evaluate,
    export,
    files,
    grams,
    inspect,
    merge,
    regions,
    sampling_modes,
    settings,
    slots,
    train,
)

NODES = [
    *dataset.NODES,
    *settings.NODES,
    *train.NODES,
    *files.NODES,
    *merge.NODES,
    *grams.NODES,
    *sampling_modes.NODES,
    *regions.NODES,
    *composer.NODES,
    *export.NODES,
    *inspect.NODES,
    *evaluate.NODES,
    *slots.NODES,
]
