"""One strength among many changed on a loaded model: only that concept's rows are computed again.

ComfyUI knows only whether a model's weights are patched by this very set of patches (`patches_uuid`). Any other set, be
it one strength away, makes the next load restore every weight from its backup and patch all of them again; on a GPU the
model even leaves the device and comes back. There is no call to change a part.

What a ModelPatcher may do is decide how it is loaded. Merge's clones therefore are of a subclass whose
`partially_load` first compares what is in the weights with what should be. Rows that differ are restored from
ComfyUI's own backup and computed again, then ComfyUI's own method runs and finds the weights up to date. Nothing of
ComfyUI is replaced, the class lives on Merge's clones and their clones alone, and unpatching works as ever, since the
backups stay.

ComfyUI's own way is taken whenever something is not as this module left it, which covers what the host does not allow:
- Weights that are not wholly on the device (low VRAM): they are patched at every use, not once.
- ModelPatcherDynamic of newer hosts, and other packs' patchers: they have load methods of their own.
- Hooks, weight wrappers, injections or a changed compute type: they write to the weights too.
Weight by weight:
- A weight that a LoHa, a DoRA or a stock LoRA after Merge changes as well is restored and patched whole, by ComfyUI.
- So is one of fp8 or another quantised type, whose rounding is random over the whole weight.
- So is one where concepts share rows, and one whose sums the machine rounds in another way for one block than for
  many at once (it is asked once for each form of a weight). So the result is that of a fresh merge, bit for bit.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_patcher
import comfy.utils
import torch
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ..comfy import ComfyModel
from ..compat import patch_dtype
from .row_blocks import Block, RowBlocksAdapter

Steps = Sequence[tuple[Any, ...]]
"""ComfyUI's patches of one weight."""

_PLAIN = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, eq=False)
class _Loaded:
    """What a load left behind: its uuid, the patches of each weight, ComfyUI's backups, the patched parameters, and
    whether weights are cast at use."""

    uuid: object
    patches: Mapping[str, Steps]
    backup: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    cast: bool


_LOADED: WeakKeyDictionary[Any, _Loaded] = WeakKeyDictionary()


class ReweightingPatcher(comfy.model_patcher.ModelPatcher):
    """A ModelPatcher that changes what differs when its model is loaded with nearly the same patches."""

    def load(self, *args: Any, **named: Any) -> None:
        """As the host's, and remembers what it left behind."""
        super().load(*args, **named)
        _remember(self)

    def partially_load(self, device_to: Any, extra_memory: float = 0, force_patch_weights: bool = False) -> Any:
        """As the host's, which has nothing to do where the weights could be brought up to date."""
        known = _LOADED.get(self.model)
        if known is not None and not force_patch_weights and _as_left(self, known, device_to):
            _bring_up_to_date(self, known, device_to)
        return super().partially_load(device_to, extra_memory, force_patch_weights)

    def unpatch_model(self, device_to: Any = None, unpatch_weights: bool = True) -> None:
        """As the host's; the patches that were in the weights need not be kept any more."""
        if unpatch_weights:
            _LOADED.pop(self.model, None)
        super().unpatch_model(device_to, unpatch_weights)


def adopted(clone: ComfyModel) -> ComfyModel:
    """A ReweightingPatcher in the place of a fresh clone that nobody holds, if that is ComfyUI's own plain patcher."""
    if type(clone) is not comfy.model_patcher.ModelPatcher:
        return clone
    ours = ReweightingPatcher(clone.model, clone.load_device, clone.offload_device, clone.size)
    ours.__dict__.update(clone.__dict__)
    return ours


def _undisturbed(patcher: ComfyModel) -> bool:
    """Whether the patches alone decide what the weights are."""
    others = (
        patcher.weight_wrapper_patches, patcher.hook_patches, patcher.hook_backup, patcher.injections,
        patcher.current_hooks, patcher.forced_hooks, patcher.weight_inplace_update,
    )  # fmt: skip
    return not any(others)


def _remember(patcher: ComfyModel) -> None:
    model = patcher.model
    _LOADED.pop(model, None)
    whole = not model.model_lowvram and model.model_loaded_weight_memory > 0
    if not whole or model.current_weight_patches_uuid != patcher.patches_uuid or not _undisturbed(patcher):
        return
    _LOADED[model] = _Loaded(
        patcher.patches_uuid,
        {name: tuple(steps) for name, steps in patcher.patches.items()},
        patcher.backup,
        {name: comfy.utils.get_attr(model, name) for name in patcher.patches},
        patcher.force_cast_weights,
    )


def _as_left(patcher: ComfyModel, known: _Loaded, device: Any) -> bool:
    model = patcher.model
    return (
        model.current_weight_patches_uuid == known.uuid != patcher.patches_uuid
        and not model.model_lowvram
        and model.device == device
        and patcher.backup is known.backup
        and known.backup.keys() == known.patches.keys()
        and patcher.force_cast_weights == known.cast
        and _undisturbed(patcher)
        and not any(kept.inplace_update for kept in known.backup.values())
        and all(comfy.utils.get_attr(model, name) is weight for name, weight in known.weights.items())
    )


def _bring_up_to_date(patcher: ComfyModel, known: _Loaded, device: Any) -> None:
    # Until all is done the weights belong to no set of patches: were this cut short, any load would start afresh.
    patcher.model.current_weight_patches_uuid = uuid.uuid4()
    with torch.inference_mode():
        for name in {**known.patches, **patcher.patches}:
            _update(patcher, name, known.patches.get(name, ()), patcher.patches.get(name, ()), device)
    patcher.model.current_weight_patches_uuid = patcher.patches_uuid
    _remember(patcher)


def _update(patcher: ComfyModel, name: str, old: Steps, new: Steps, device: Any) -> None:
    pair = _row_blocks(old), _row_blocks(new)
    if pair[0] is not None and pair[1] is not None:
        if _update_rows(patcher, name, pair[0], pair[1], device):
            return
    elif _alike(old, new):
        return
    if name in patcher.backup:
        original = patcher.backup.pop(name).weight
        comfy.utils.set_attr_param(patcher.model, name, original if new else original.to(device))
    patcher.patch_weight_to_device(name, device_to=device)


def _row_blocks(steps: Steps) -> RowBlocksAdapter | None:
    """The adapter of a weight that only row blocks patch, at strength 1."""
    if len(steps) != 1:
        return None
    strength, value, factor, offset, function = steps[0]
    plain = isinstance(value, RowBlocksAdapter) and (strength, factor, offset, function) == (1.0, 1.0, None, None)
    return value if plain else None


def _alike(a: Any, b: Any) -> bool:
    """Whether two patches, or parts of patches, do the same."""
    if a is b:
        return True
    if isinstance(a, WeightAdapterBase) and type(a) is type(b):
        return _alike(a.weights, b.weights)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    return type(a) is type(b) and isinstance(a, (int, float, str)) and a == b


def _update_rows(patcher: ComfyModel, name: str, old: RowBlocksAdapter, new: RowBlocksAdapter, device: Any) -> bool:
    """Restore and patch the rows that differ; False when it cannot be done row by row."""
    live, set_func, convert_func = comfy.model_patcher.get_key_weight(patcher.model, name)
    original, dtype = patcher.backup[name].weight, patch_dtype(device)
    if set_func is not None or convert_func is not None or live.dtype not in _PLAIN or original.dtype != live.dtype:
        return False
    if not all(map(_is_plain, (live, original))) or not _apart(old.form(), new.form()):
        return False
    if not all(_rounds_alike(form, live.shape[0], dtype, device) for form in {*old.form(), *new.form()}):
        return False
    target, source = live.data.view(len(live), -1), original.data.view(len(original), -1)
    for rows, block in _differing(old, new):
        part = slice(rows.start, rows.stop, rows.step)
        fresh = source[part].to(device=device, dtype=dtype, copy=True).contiguous()
        target[part] = fresh if block is None else _patched(fresh, block)
    return True


def _is_plain(weight: Tensor) -> bool:
    return type(weight) in (Tensor, torch.nn.Parameter) and weight.is_contiguous()


def _patched(rows: Tensor, block: Block) -> Tensor:
    """`rows` (rows, n) plus up @ down."""
    up, down = block
    return rows.unsqueeze(0).baddbmm_(up.to(rows), down.to(rows), alpha=1.0).squeeze(0)


def _differing(old: RowBlocksAdapter, new: RowBlocksAdapter) -> Iterator[tuple[range, Block | None]]:
    """Rows whose block is another, with the new block; None where there is none any more."""
    if old.form() == new.form():
        for was, now in zip(old.weights, new.weights, strict=True):
            ups, downs, start, between, step = now
            for i in _changed(was, now):
                first = start + i * between
                yield range(first, first + ups.shape[1] * step, step), (ups[i : i + 1], downs[i : i + 1])
        return
    before, after = old.blocks(), new.blocks()
    for rows in before.keys() | after.keys():
        if rows not in before or rows not in after or not _alike(before[rows], after[rows]):
            yield rows, after.get(rows)


def _changed(was: Any, now: Any) -> list[int]:
    """Which blocks of two runs of one form differ."""
    differ = [
        (a != b).flatten(1).any(1) for a, b in zip(was[:2], now[:2], strict=True)
        if a is not b and (a.dtype != b.dtype or not torch.equal(a, b))
    ]  # fmt: skip
    return [] if not differ else torch.stack(differ).any(0).nonzero().flatten().tolist()


@lru_cache(maxsize=256)
def _apart(*patches: tuple[tuple[int, ...], ...]) -> bool:
    """Whether no row is in two different blocks of any of the patches, given by their forms."""
    blocks = set()
    for form in patches:
        own = [
            range(start + i * between, start + i * between + length * step, step)
            for k, length, _, _, start, between, step in form
            for i in range(k)
        ]
        if len(own) != len(set(own)):
            return False
        blocks.update(own)
    return sum(map(len, blocks)) == len({row for rows in blocks for row in rows})


@lru_cache(maxsize=256)
def _rounds_alike(form: tuple[int, ...], out_features: int, dtype: torch.dtype, device: Any) -> bool:
    """Whether a block gets the same bits alone as in its run: libraries may sum in another order for other batches.

    Asked of the machine, with random numbers in the very shapes and places.
    """
    k, length, rank, size, start, between, step = form
    random = torch.Generator().manual_seed(0)
    weight, ups, downs = (
        torch.randn(shape, generator=random).to(device=device, dtype=dtype)
        for shape in ((out_features, size), (k, length, rank), (k, rank, size))
    )
    adapter = RowBlocksAdapter(set(), [(ups, downs, start, between, step)])
    together = adapter.calculate_weight(weight.clone(), "", 1.0)
    places = ((slice(rows.start, rows.stop, rows.step), block) for rows, block in adapter.blocks().items())
    return all(torch.equal(_patched(weight[at].clone(), block), together[at]) for at, block in places)
