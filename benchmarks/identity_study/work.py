"""What `bench identity` has to do, piece by piece: trainings, and merges to sample. After `import_comfyui`.

Every piece is kept in a file named by its content, so a run goes on where it was stopped, and a change of one method
does that method alone again. Pieces of one stage do not need each other and are done by as many processes as asked for.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import folder_paths
import numpy as np
import torch
from torch import Tensor

from benchmarks.common.shared import say
from benchmarks.identity_study.sample import SAMPLING, Merge, Shot, shoot
from benchmarks.identity_study.subject import Subject
from benchmarks.identity_study.train import Base, Training
from blocklora_core.files.io import write_atomic
from blocklora_core.host.evaluate.generate import Sampling
from blocklora_core.host.train.precision import AUTO


@dataclass(frozen=True)
class Folders:
    """Where things are. work: trained files and pictures are kept here, all of one precision."""

    checkpoint: Path
    art: Path
    work: Path
    precision: str = AUTO

    @cached_property
    def files(self) -> Path:
        return self._folder("files")

    @cached_property
    def pictures(self) -> Path:
        return self._folder("pictures")

    def _folder(self, name: str) -> Path:
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True)
class PromptCase:
    """Pictures of one prompt: the concept they are to show, the prompt, and the seeds of their noise.

    class_word: the prompt names the class, not the concept; the pictures tell how far the class has drifted.
    """

    member: Subject
    prompt: str
    seeds: tuple[int, ...]
    class_word: bool = False

    @property
    def shots(self) -> list[Shot]:
        return [Shot(self.prompt, seed) for seed in self.seeds]


class Sampled(Protocol):
    """Pictures that are kept in one file."""

    def path(self, folders: Folders) -> Path: ...

    def make(self, base: Base, folders: Folders) -> None: ...


def keep_pictures(path: Path, pictures: Tensor, seconds: float) -> None:
    """pictures: (N, H, W, 3) uint8."""
    buffer = BytesIO()
    np.savez_compressed(buffer, pictures=pictures.numpy(), seconds=seconds)
    write_atomic(path, buffer.getvalue())


def kept_pictures(path: Path) -> Tensor:
    """(N, H, W, 3) in 0..1."""
    with np.load(path) as kept:
        return torch.from_numpy(kept["pictures"]).float() / 255


def named_by(content: object) -> str:
    """A file's name from all that its pictures come from."""
    return f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]}.npz"


@dataclass(frozen=True)
class Cell:
    """Pictures from one merge: `trained` merged as `merge` says, or the base itself where there are none."""

    trained: tuple[Training, ...]
    merge: Merge
    cases: tuple[PromptCase, ...]
    sampling: Sampling = SAMPLING

    @property
    def shots(self) -> list[Shot]:
        return [shot for one in self.cases for shot in one.shots]

    def path(self, folders: Folders) -> Path:
        files = [training.path(folders.art, folders.files).name for training in self.trained]
        merge = {"method": self.merge.method, "options": {**vars(self.merge.options), "device": ""}}
        shots = [(shot.prompt, shot.seed) for shot in self.shots]
        how = self.sampling
        # A single concept is not merged, whatever the method.
        given = [files, merge if len(files) > 1 else None, shots, how.steps, how.cfg, how.sampler, how.scheduler]
        given += [how.size] if how.size != SAMPLING.size else []
        return folders.pictures / named_by(given)

    def make(self, base: Base, folders: Folders) -> None:
        path = self.path(folders)
        if path.is_file():
            return
        stack = tuple(training.file(base, folders.art, folders.files) for training in self.trained)
        merge = self.merge if len(stack) > 1 else Merge("per_row")
        started = time.perf_counter()
        pictures = shoot(base, stack, merge, self.shots, self.sampling)
        keep_pictures(path, pictures, time.perf_counter() - started)

    def pictures(self, folders: Folders) -> Iterator[tuple[PromptCase, Tensor]]:
        """What was asked for, with its pictures (N, H, W, 3) in 0..1."""
        whole = kept_pictures(self.path(folders))
        yield from zip(self.cases, whole.split([len(one.seeds) for one in self.cases]), strict=True)


_BASE: list[Base] = []
_FOLDERS: list[Folders] = []


def _begin(folders: Folders, threads: int) -> None:
    torch.set_num_threads(threads)
    folder_paths.set_user_directory(str(folders.work / "user"))  # Grams that are kept.
    _FOLDERS.append(folders)
    with torch.inference_mode():
        _BASE.append(Base.load(folders.checkpoint, folders.precision))


def _train(training: Training) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        training.file(_BASE[0], _FOLDERS[0].art, _FOLDERS[0].files)
    return time.perf_counter() - started


def _sample(piece: Sampled) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        piece.make(_BASE[0], _FOLDERS[0])
    return time.perf_counter() - started


@dataclass
class WorkerPool:
    """Processes that each hold the base."""

    folders: Folders
    workers: int

    @property
    def _spent(self) -> Path:
        return self.folders.work / "seconds.txt"

    @property
    def seconds(self) -> float:
        """Of all work that was ever done for what is kept, as if by one process."""
        return float(self._spent.read_text(encoding="utf-8")) if self._spent.is_file() else 0.0

    def _spend(self, seconds: float) -> None:
        write_atomic(self._spent, str(self.seconds + seconds).encode())

    def work(self, trainings: Sequence[Training], cells: Sequence[Sampled], limit_s: float = float("inf")) -> None:
        """Do what is not done yet, trainings first; after so many seconds nothing new is begun."""
        art, files = self.folders.art, self.folders.files
        end = time.perf_counter() + limit_s
        self._stage("trained", _train, {one.path(art, files): one for one in trainings}, end)
        if time.perf_counter() < end:
            self._stage("sampled", _sample, {cell.path(self.folders): cell for cell in cells}, end)

    def _stage(self, what: str, action: Callable[[Any], float], pieces: dict[Path, Any], end: float) -> None:
        due = [piece for path, piece in pieces.items() if not path.is_file()]
        say(f"{what}: {len(pieces) - len(due)} of {len(pieces)} kept from before")
        if not due:
            return
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        started = time.perf_counter()
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.workers, len(due)), context, _begin, (self.folders, threads)) as pool:
            futures: list[Future[float]] = [pool.submit(action, piece) for piece in due]
            try:
                for done, future in enumerate(as_completed(futures), 1):
                    self._spend(future.result())
                    passed = time.perf_counter() - started
                    left = passed / done * (len(due) - done)
                    say(f"{what}: {done} of {len(due)} in {passed:.0f} s, about {left:.0f} s to go")
                    if time.perf_counter() > end:
                        say(f"{what}: stopped, as its time is over")
                        pool.shutdown(cancel_futures=True)
                        break
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
