"""How loudly one concept answers to another's inputs, from the Grams that the files carry.

For inputs x with Gram G the mean of |Delta W x|^2 is tr(Delta W G Delta W^T) = |Delta W G^(1/2)|_F^2. With the packed
Gram and Delta W = B A it takes products of r x n only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...cancel import check
from ...concept.concept import BlockLoRA, Stack
from ...concept.gram import Gram
from ...concept.layer import Layer


def answer(layer: Layer, gram: Gram) -> float:
    """Mean of |Delta W x|^2 over inputs with `gram`."""
    up, down = layer.up.flatten(1).double(), layer.down.flatten(1).double()
    check()
    product = (up.T @ up) * (gram.applied_to(down) @ down.T)
    return max(0.0, layer.scale**2 * float(product.sum()))


def crosstalk(speaker: BlockLoRA, listener: BlockLoRA) -> float | None:
    """The root of what `listener` answers to the inputs of `speaker`, over what it answers to its own.

    Over all layers that `listener` changes and both have Grams for; layers must be named alike in both. 0 is deaf to
    the other concept, 1 answers as if it were the own one. None where Grams are lacking or the listener is silent.
    """
    if speaker.grams is None or listener.grams is None:
        return None
    heard, own = 0.0, 0.0
    for name, layer in listener.layers.items():
        if speaker.grams.covers([name]) and listener.grams.covers([name]):
            heard += answer(layer, speaker.grams.of(name))
            own += answer(layer, listener.grams.of(name))
    return math.sqrt(heard / own) if own else None


def interference(stack: Stack, number: int) -> float | None:
    """The root of what all other members together answer to the inputs of member `number`, over its own answer to them.

    The others are taken for independent: their energies add up. None where it has no Grams or gives no answer.
    """
    speaker = stack[number]
    if speaker.grams is None:
        return None
    own = _answers(speaker, speaker)
    others = math.fsum(_answers(speaker, lora) for at, lora in enumerate(stack) if at != number)
    return math.sqrt(others / own) if own else None


def _answers(speaker: BlockLoRA, listener: BlockLoRA) -> float:
    grams = speaker.grams
    names: Iterable[str] = listener.layers if grams else ()
    return math.fsum(answer(listener.layers[name], grams.of(name)) for name in names if grams and grams.covers([name]))
