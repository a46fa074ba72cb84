"""A model's forward and backward pass without its numbers: on tensors that have shapes alone, counted as they live."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

_PAGED = "_v"
"""Where Dynamic VRAM keeps a module's pages: without it the host takes the module's own weights."""


@contextmanager
def weightless(modules: Sequence[nn.Module], device: torch.device) -> Iterator[FakeTensorMode]:
    """Until the block ends, the weights and buffers of `modules` have their shapes on `device` and no numbers.

    What is computed within the mode that comes is as weightless. Numbers that are asked for raise.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    stand_ins: dict[int, Tensor] = {}
    before: list[tuple[dict[str, Any], Mapping[str, Any]]] = []

    def stand_in(tensor: Tensor) -> Tensor:
        if id(tensor) not in stand_ins:
            with mode:
                made = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            parameter = isinstance(tensor, nn.Parameter)
            stand_ins[id(tensor)] = nn.Parameter(made, requires_grad=tensor.requires_grad) if parameter else made
        return stand_ins[id(tensor)]

    try:
        for child in (child for module in modules for child in module.modules()):
            tables: tuple[dict[str, Any], ...] = (child._parameters, child._buffers)
            for table in tables:
                before.append((table, dict(table)))
                table.update({name: stand_in(tensor) for name, tensor in table.items() if tensor is not None})
            if _PAGED in vars(child):
                before.append((vars(child), {_PAGED: vars(child).pop(_PAGED)}))
        yield mode
    finally:
        for table, held in before:
            table.update(held)


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors on `device` that come to be while it is on; what was there before counts nothing.

    most: at one time.
    """

    def __init__(self, device: torch.device):
        super().__init__()
        self.device, self.now, self.most = device, 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:  # Most of the calls, where a tensor has no numbers.
            return func(*args)
        self._see((*args, *(kwargs or {}).values()), counted=False)
        out = func(*args, **(kwargs or {}))
        self._see((out,), counted=True)
        return out

    def _see(self, found: Sequence[Any], counted: bool) -> None:
        for tensor in _tensors(found):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes() if counted else 0
            if key in self._known or tensor.device.type != self.device.type:
                continue
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _tensors(found: Sequence[Any]) -> Iterator[Tensor]:
    """Of an operator's arguments or results: a schema has tensors, and lists of them."""
    for one in found:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (list, tuple)):
            yield from _tensors(one)
