"""Gradient checkpointing (Chen et al., arXiv 1604.06174): a block's activations are computed again in the backward pass
instead of being kept. Less memory, about a third more time, the same gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Inside = Callable[[nn.Module], AbstractContextManager[None]]

_CONTAINERS = (nn.ModuleList, nn.Sequential)


def heavy_blocks(network: nn.Module, adapted: Collection[nn.Module]) -> list[nn.Module]:
    """The blocks a network is stacked from: ResBlocks and transformer blocks of a UNet, transformer blocks of a DiT.

    They are the members of its lists of modules. Where such a member is itself stacked from blocks that hold all of its
    `adapted` modules, those count in its place: the less is computed again at a time, the less memory it takes.
    """
    return _blocks(network, set(adapted), top=True)


def _blocks(module: nn.Module, adapted: set[nn.Module], top: bool) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module.children():
        # Inside a block a Sequential is plumbing; above the blocks it holds them, as in the UNet's stages.
        if isinstance(child, nn.ModuleList) or (top and isinstance(child, nn.Sequential)):
            for member in _members(child):
                found.extend(_innermost(member, adapted))
        else:
            found.extend(_blocks(child, adapted, top))
    return found


def _members(container: nn.Module) -> Iterator[nn.Module]:
    for child in container.children():
        if isinstance(child, _CONTAINERS):
            yield from _members(child)
        elif next(child.children(), None) is not None:
            yield child


def _innermost(block: nn.Module, adapted: set[nn.Module]) -> list[nn.Module]:
    inner = _blocks(block, adapted, top=False)
    held = {module for part in inner for module in part.modules()}
    return inner if inner and adapted.intersection(block.modules()) <= held else [block]


@contextmanager
def checkpointed(blocks: Sequence[nn.Module], inside: Inside = lambda _block: nullcontext()) -> Iterator[None]:
    """While gradients are on, `blocks` compute their activations anew in the backward pass; undone at the end.

    inside: what a block runs in when it computes anew, as what surrounds the model's own call is gone by then.
    """
    before = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = _recomputing(block.forward, partial(inside, block))
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            if forward is None:
                vars(block).pop("forward", None)
            else:
                block.forward = forward


def _recomputing(forward: Callable[..., Any], inside: Callable[[], AbstractContextManager[None]]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # The host hands one dict of options down and goes on to change it: the second time must see the first's.
        args, kwargs = tuple(map(_as_it_is, args)), {name: _as_it_is(value) for name, value in kwargs.items()}
        around = partial(_nothing_then, inside)
        return checkpoint(afresh, *args, use_reentrant=False, context_fn=around, **kwargs)

    def afresh(*args: Any, **kwargs: Any) -> Any:
        return forward(*map(_own, args), **{name: _own(value) for name, value in kwargs.items()})

    return run


def _nothing_then(inside: Callable[[], AbstractContextManager[None]]) -> tuple[Any, Any]:
    return nullcontext(), inside()


def _as_it_is(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _own(value: Any) -> Any:
    # Some blocks add to their input in place (Flux), which would spoil it for the second time.
    return value.clone() if isinstance(value, Tensor) else value
