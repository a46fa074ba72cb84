"""The whole state of a run in one safetensors file, so that a run broken off goes on as if nothing had happened.

Tensors hold what is learnt, its averages, the optimiser's moments, the generator and the losses; one JSON record in the
metadata holds the rest. No pickle is read or written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files.io import serialise
from ..files.untrusted.header import FileError, read_whole, tensors_in
from ..files.untrusted.json_text import parse_json
from ..files.writing import write_atomic
from .config import TrainConfig
from .loop import Position, Trainer
from .quantised import stored

KEY = "blocklora_state"
CHECKSUM = "blocklora_checksum"
FORMAT = 2

_SAMPLES = 64  # numbers of each weight that tell one base from another
_SHOWN = frozenset({"preview_every", "preview_steps", "preview_cfg", "sample_prompt", "save_every"})
_DAMAGED = "The file is damaged: delete it and train anew."

Inputs = Mapping[str, str]
"""What a run was given besides its settings: name -> value or hash."""


class StateMismatchError(ValueError):
    """A state belongs to a run with other settings or inputs; says which."""


def run_inputs(trainer: Trainer) -> dict[str, str]:
    """The inputs of a run: base and its weights, text encoder, layers, concept, captions, latents."""
    port, concept, examples = trainer.port, trainer.concept, trainer.dataset.examples
    layers = {name: trainer.layers[name] for name in trainer.adapters.adapters}
    prompt = port.encode(concept.class_word, concept.name, {})
    return {
        "base": port.base,
        "concept": concept.name,
        "class word": concept.class_word,
        "captions": _hash_text(example.caption for example in examples),
        "pictures": _hash_tensors(example.latents for example in examples),
        "masks": _hash_tensors(_mask_or_none(example.mask) for example in examples),
        "layers": _hash_text(f"{name} {layer.out_features} {layer.in_features}" for name, layer in layers.items()),
        "weights of the base": hash_weights(layer.module.get_parameter("weight") for layer in layers.values()),
        "text encoder": _hash_tensors([prompt.cross, *port.class_embeddings(concept.class_word).values()]),
    }


def hash_weights(weights: Iterable[Tensor]) -> str:
    """A hash of a few numbers of each weight: enough to tell one checkpoint or merge from another."""
    return _hash_tensors(map(_sample, weights))


def run_key(config: TrainConfig, inputs: Inputs) -> str:
    """A short name of a run that another run with the same settings and inputs shares: 12 hexadecimal digits.

    What is shown and saved on the way is not part of it, as it does not change what is learnt.
    """
    return hashlib.sha256(_json({"config": deciding(config), "inputs": dict(inputs)}).encode()).hexdigest()[:12]


def save_state(path: str | os.PathLike[str], trainer: Trainer, inputs: Inputs) -> Path:
    """Write `encode_state`, atomically, over any state before it; gives the path."""
    path = Path(path)
    write_atomic(path, encode_state(trainer, inputs))
    return path


def encode_state(trainer: Trainer, inputs: Inputs) -> bytes:
    """The file of `trainer`'s state after its last whole step, with a checksum.

    FileError when the run has not started, broke off within an optimiser step, or what it learnt is not finite.
    """
    if trainer.position is None:
        raise FileError("State: expected a run that has started, got one without a step, or stopped between two steps.")
    if not all(bool(parameter.isfinite().all()) for parameter in trainer.learner.parameters):
        raise FileError("State: expected finite weights, got NaN or infinity. Train at a lower learning rate.")
    optimizer, tensors = _pack(trainer.learner.optimizer.state_dict(), "optimizer")
    record = {
        "format": FORMAT,
        "config": deciding(trainer.config),
        "inputs": dict(inputs),
        "steps_done": len(trainer.losses),
        "frozen": trainer.prompts.frozen,
        "queues": trainer.position.queues,
        "optimizer": optimizer,
    }
    tensors.update(_run_tensors(trainer, trainer.position))
    ready = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return with_checksum(ready, {KEY: _json(record)})


def with_checksum(tensors: Mapping[str, Tensor], entries: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file that tells whether it is as it was written."""
    return serialise(tensors, {**entries, CHECKSUM: _checksum(tensors, entries)})


def checked(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of the bytes of `with_checksum`. FileError when they are not as they were written."""
    tensors, entries = tensors_in(path, data)
    found = entries.pop(CHECKSUM, None)
    if found is None:
        raise FileError(f"{path}: expected a training state with its checksum, got another file. Train anew.")
    if found != _checksum(tensors, entries):
        raise FileError(f"{path}: expected the checksum of what was written, got another. {_DAMAGED}")
    return tensors, entries


def _checksum(tensors: Mapping[str, Tensor], entries: Mapping[str, str]) -> str:
    state = hashlib.sha256(_json(dict(entries)).encode())
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def load_state(path: str | os.PathLike[str], trainer: Trainer, inputs: Inputs, data: bytes | None = None) -> int:
    """Put a new `trainer` where the saved run was; its `run` then ends as that run would have. Gives the steps done.

    data: the state where it is not in the file at `path`. StateMismatchError when settings or inputs differ, FileError
    when the state cannot be read.
    """
    path = Path(path)
    tensors, entries = checked(path, read_whole(path) if data is None else data)
    record = _read_record(path, entries)
    _check_equal(path, "settings", record.get("config", {}), deciding(trainer.config))
    _check_equal(path, "inputs", record.get("inputs", {}), dict(inputs))
    # What was drawn before the first step is drawn again, from the seed; then the generator goes where it was.
    trainer.prepare()
    try:
        _restore(trainer, record, tensors)
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
        raise FileError(f"{path}: expected a whole training state, got: {error!r}. {_DAMAGED}") from error
    return len(trainer.losses)


def _run_tensors(trainer: Trainer, position: Position) -> dict[str, Tensor]:
    learner = trainer.learner
    averages = learner.ema.values if learner.ema else []
    return {
        **{f"weight.{at}": parameter for at, parameter in enumerate(learner.parameters)},
        **{f"ema.{at}": value for at, value in enumerate(averages)},
        "generator": position.generator,
        "losses": torch.tensor(trainer.losses, dtype=torch.float64),
        "niche_losses": torch.tensor(trainer.niche_losses, dtype=torch.float64),
    }


def _restore(trainer: Trainer, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    learner = trainer.learner
    if record["frozen"]:
        trainer.freeze_token()
    _fill(learner.parameters, "weight", tensors)
    if learner.ema:
        _fill(learner.ema.values, "ema", tensors)
        learner.ema.updates = record["steps_done"]
    learner.optimizer.load_state_dict(_unpack(record["optimizer"], tensors))
    trainer.generator.set_state(tensors["generator"])
    trainer.dataset.put_queues(record["queues"])
    trainer.position = Position(tensors["generator"], record["queues"])
    trainer.losses[:] = tensors["losses"].tolist()
    trainer.niche_losses[:] = tensors["niche_losses"].tolist()


@torch.no_grad()
def _fill(values: Iterable[Tensor], name: str, tensors: Mapping[str, Tensor]) -> None:
    for at, value in enumerate(values):
        value.copy_(tensors[f"{name}.{at}"])


def _pack(value: Any, name: str) -> tuple[Any, dict[str, Tensor]]:
    """(`value` as plain JSON, with its tensors named in their places; those tensors by name)."""
    if isinstance(value, Tensor):
        return {"tensor": name}, {name: value}
    if isinstance(value, Mapping):
        parts = [(key, *_pack(part, f"{name}.{key}")) for key, part in value.items()]
        # Optimisers count parameters by whole numbers, which JSON has no keys of.
        packed: Any = {"dict": [[key, plain] for key, plain, _ in parts]}
    elif isinstance(value, list | tuple):
        parts = [(at, *_pack(part, f"{name}.{at}")) for at, part in enumerate(value)]
        packed = {type(value).__name__: [plain for _, plain, _ in parts]}
    else:
        return value, {}
    return packed, {key: tensor for *_, found in parts for key, tensor in found.items()}


def _unpack(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_pack` was given."""
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _unpack(part, tensors) for key, part in value}
    parts = [_unpack(part, tensors) for part in value]
    return tuple(parts) if kind == "tuple" else parts


def _read_record(path: Path, entries: Mapping[str, str]) -> dict[str, Any]:
    try:
        record = parse_json(entries.get(KEY, ""))
    except ValueError as error:
        raise FileError(f"{path}: expected a training state of BlockLoRA, got another file. Choose another.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise FileError(f"{path}: expected a training state of format {FORMAT}, got another. Train anew.")
    return record


def _check_equal(path: Path, what: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    odd = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    if odd:
        listed = ", ".join(f"{name} (saved {saved.get(name)!r}, now {now.get(name)!r})" for name in odd)
        raise StateMismatchError(
            f"{path}: expected the {what} of the saved run, got others: {listed}. Set them back, or train anew."
        )


def deciding(config: TrainConfig) -> dict[str, Any]:
    """JSON-able settings that decide what is learnt, by flat name: without what is shown and saved on the way."""
    plain: dict[str, Any] = json.loads(_json(config.to_dict()))
    return {name: value for name, value in plain.items() if name not in _SHOWN}


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _mask_or_none(mask: Tensor | None) -> Tensor:
    return torch.empty(0) if mask is None else mask


def _sample(weight: Tensor) -> Tensor:
    flat = stored(weight.detach())[0].flatten()
    return flat[:: max(1, flat.numel() // _SAMPLES)].float()


def _hash_text(lines: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps(list(lines)).encode()).hexdigest()


def _hash_tensors(tensors: Iterable[Tensor]) -> str:
    state = hashlib.sha256()
    for tensor in tensors:
        value = tensor.detach().float().cpu().contiguous()
        state.update(f"{tuple(value.shape)}".encode())
        state.update(value.numpy().tobytes())
    return state.hexdigest()
