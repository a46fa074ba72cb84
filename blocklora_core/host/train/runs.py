"""What training runs leave on disk: the state of one broken off, the result of one finished, snapshots on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from ...concept.concept import BlockLoRA
from ...files.io import encode, load
from ...files.untrusted.header import FileError, read_whole
from ...files.writing import write_atomic
from ...training import Trainer
from ...training.state import Inputs, checked, encode_state, hash_weights, load_state, run_inputs, with_checksum
from ..claims import LASTING
from ..comfy import ComfyModel
from ..compat import loaded_weights
from ..disk import interrupted_folder, newest_first, runs_folder, safe_name, target_file, write_lora
from .port import ComfyPort

_LORA = "blocklora_lora"

# The state that the disk did not take, of the last such run: run's key -> file.
_unwritten: dict[str, bytes] = {}

# Of states and what was learnt, besides those of the last day: a cluster's workers may go on from each other's.
KEPT_STATES = 8
KEPT_RESULTS = 16


def attempt(what: str, action: Callable[[], object]) -> str:
    """Save something beside the training, which goes on, or ends as it does, when that fails; says what the disk
    did not take."""
    try:
        action()
    except Exception as error:  # noqa: BLE001  (of whatever kind: the training itself must not be lost by it)
        said = f"{what} could not be saved: {error}"
        logging.error("BlockLoRA: %s", said)
        # A step that broke off half-way has no state, and that is no fault of the disk's.
        return said if isinstance(error, OSError) else ""
    return ""


class NotKeptError(ValueError):
    """A training ended early and the disk did not take what it learnt; says where it is."""


def inputs_of(trainer: Trainer, port: ComfyPort, dtype: torch.dtype) -> dict[str, str]:
    """All that decides what a run learns besides its settings, the whole of both models included.

    Gradient checkpointing is left out: it learns the same, and turning it on is how a run goes on that had no memory.
    """
    sampling = port.sampling
    return {
        **run_inputs(trainer),
        "weights of the model": hash_weights(_of_loaded(port.model)),
        # Checkpoints of SD1.5 and SDXL leave this projection out, and the host leaves in it what the memory held: in
        # another server it would be another run. Prompts are the same whatever it holds.
        "weights of the text encoder": hash_weights(_of_loaded(port.clip.patcher, without="text_projection.weight")),
        "noise levels": f"{[kind.__name__ for kind in type(sampling).__mro__]} {hash_weights([sampling.sigmas])}",
        "precision": str(dtype),
        "device": port.device.type,
    }


def _of_loaded(patcher: ComfyModel, without: str | None = None) -> Iterator[Tensor]:
    weights = dict(loaded_weights(patcher))
    names = [name for name in sorted(weights) if without is None or not name.endswith(without)]
    return (weights[name] for name in names if weights[name].numel())


@dataclass(frozen=True)
class Finished:
    """The end of a run: what it learnt and what its report shows. sample: the last sample (H, W, 3), uint8, or None."""

    lora: BlockLoRA
    losses: list[float]
    niche_losses: list[float]
    sample: Tensor | None = None


@dataclass(frozen=True)
class RunFiles:
    """The files of one run. key: of state.run_key; inputs: what it was made from."""

    key: str
    inputs: Inputs

    @property
    def state(self) -> Path:
        return runs_folder() / f"{self.key}.state"

    @property
    def lora(self) -> Path:
        return runs_folder() / f"{self.key}.safetensors"

    @property
    def record(self) -> Path:
        return runs_folder() / f"{self.key}.record"

    def resume(self, trainer: Trainer) -> int:
        """Put a new `trainer` where the run was broken off; the steps done. ValueError when the state is no good."""
        # What the disk did not take is newer than what is there.
        return load_state(self.state, trainer, self.inputs, _unwritten.get(self.key))

    @property
    def is_broken_off(self) -> bool:
        """Whether there is a state to go on from."""
        return self.state.exists() or self.key in _unwritten

    def keep_state(self, trainer: Trainer) -> None:
        """Save the state after the last whole step. FileError when that cannot be done; where it is the disk that does
        not take it, this server keeps it for the next run.
        """
        data = encode_state(trainer, self.inputs)
        try:
            write_atomic(self.state, data)
        except OSError:
            _unwritten.clear()
            _unwritten[self.key] = data
            raise
        _unwritten.pop(self.key, None)
        _forget(runs_folder(), "*.state", KEPT_STATES, self.state, LASTING)

    def keep_lora(self, trainer: Trainer) -> Path:
        """Save what a run that ends early learnt as an ordinary LoRA, in place of an earlier one of this run."""
        folder = interrupted_folder()
        before = self._interrupted()
        path = folder / f"{safe_name(trainer.concept)}_step{len(trainer.losses)}.{self.key}.safetensors"
        # float32: a diverging run may leave numbers that float16 cannot hold.
        write_atomic(path, encode(trainer.result(), torch.float32))
        for older in before:
            if older != path:
                older.unlink(missing_ok=True)
        _forget(folder, "*.safetensors", KEPT_STATES, path, LASTING)
        return path

    def _interrupted(self) -> list[Path]:
        return list(interrupted_folder().glob(f"*.{self.key}.safetensors"))

    def finish(self, run: Finished) -> None:
        """Keep the result in place of the state. ValueError or OSError when that cannot be done."""
        # The LoRA comes last: a run without it is no finished one.
        lora = encode(run.lora, torch.float32)
        write_atomic(self.record, with_checksum(_tensors(run), {_LORA: sha256(lora).hexdigest()}))
        write_atomic(self.lora, lora)
        for left in (self.state, *self._interrupted()):
            left.unlink(missing_ok=True)
        _unwritten.pop(self.key, None)
        _forget(runs_folder(), "*.safetensors", KEPT_RESULTS, self.lora)
        _forget(runs_folder(), "*.record", KEPT_RESULTS, self.record)

    def finished(self) -> Finished | None:
        """The result of this very run, if there is one that can be read."""
        if not self.lora.exists():
            return None
        try:
            kept, entries = checked(self.record, read_whole(self.record))
            if entries.get(_LORA) != sha256(read_whole(self.lora)).hexdigest():
                raise FileError(f"{self.lora}: expected the LoRA that was written, got another.")
            losses, niche = kept["losses"].tolist(), kept["niche_losses"].tolist()
            return Finished(_as_trained(load(self.lora)), losses, niche, kept.get("sample"))
        except (ValueError, KeyError, OSError) as error:
            logging.warning("BlockLoRA: the kept result of this training cannot be read, it is trained anew: %s", error)
            return None


def _as_trained(lora: BlockLoRA) -> BlockLoRA:
    return BlockLoRA(
        lora.concept,
        lora.layers,
        scheme=lora.scheme,
        slot=lora.slot,
        base=lora.base,
        embeddings=lora.embeddings,
        grams=lora.grams,
        training=lora.training,
    )


def _tensors(run: Finished) -> dict[str, Tensor]:
    found = {
        "losses": torch.tensor(run.losses, dtype=torch.float64),
        "niche_losses": torch.tensor(run.niche_losses, dtype=torch.float64),
    }
    return found if run.sample is None else {**found, "sample": run.sample}


def _forget(folder: Path, pattern: str, kept: int, newest: Path, lasting: float = 0) -> None:
    """Remove all but the newest `kept`, and those that were written in the last `lasting` seconds."""
    for path in list(newest_first(folder.glob(pattern), newest))[kept:]:
        with suppress(OSError):  # another one was quicker
            if abs(time.time() - path.stat().st_mtime) >= lasting:
                path.unlink()


def save_snapshot(trainer: Trainer) -> Path:
    """The concept as it is now, as an ordinary LoRA in the loras folder."""
    name = f"{safe_name(trainer.concept)}_step{len(trainer.losses)}"
    path = target_file("blocklora/snapshots/", trainer.concept).with_stem(name)
    # float32: a diverging run may leave numbers that float16 cannot hold.
    return write_lora(path, trainer.result(), dtype=torch.float32, once=True)
