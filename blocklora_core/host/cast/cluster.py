"""Ray as the engine of a pool: an actor a worker, each on its share of a GPU. Imported only where it is asked for.

The machines see this pack, ComfyUI and the checkpoint at the same paths. Pictures go to the workers and files come back
through Ray; nothing else needs to be shared but `states`, where another machine is to go on with what a lost one began.
"""

from __future__ import annotations

import os
import pickle
import platform
import signal
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...cast.pool import Answer, LostError, Pool, UnfitError
from ...cast.tasks import Progress, told
from .headless import PACK, start

if TYPE_CHECKING:
    from .base import Loaded

T = TypeVar("T")

AUTO, LOCAL = "auto", "local"
INSTALL = "pip install 'ray[default,client]>=2.40,<3'"
TOKEN = Path.home() / ".ray" / "auth_token"
ASKED = 2.0
"""Seconds that a worker has to say how far it is."""


@dataclass(frozen=True)
class Setup:
    """What a worker starts with. comfyui: its folder. states: the folder for states of trainings, None for ComfyUI's
    own user folder."""

    comfyui: Path
    base: str
    cpu: bool = False
    states: Path | None = None


@dataclass(frozen=True)
class Cluster:
    """address: HOST:6379 on a machine of the cluster, ray://HOST:10001 from elsewhere; `auto` for what RAY_ADDRESS
    says, else a cluster of this machine alone, which ends with this process.
    gpus: of each worker, such as .5 for two on one. workers: at most; 0 for as many as there is room for."""

    address: str
    gpus: float = 1.0
    workers: int = 0


class RemoteWorker:
    """What runs in a worker's process: ComfyUI is started and the base loaded once, then it does what it is given."""

    def __init__(self, setup: Setup):
        self.progress: Progress | None = None
        self.busy = threading.Event()
        self.unfit = ""
        try:
            start(setup.comfyui, setup.cpu, setup.states)
            from .base import load_base

            self.base: Loaded = load_base(setup.base)
        except Exception as error:  # noqa: BLE001  (of whatever kind: Ray would bury it in a traceback)
            self.unfit = f"{platform.node()}: {told(error)}"

    def begun(self) -> Answer:
        """Asked first: whether it could start."""
        return Answer(pickle.dumps(None), self.unfit, bool(self.unfit))

    def do(self, work: str, *given: bytes) -> Answer:
        """One task's result, pickled. Errors go as text: another process may not know their classes."""
        from .worker import WORKS, heard

        self.progress = None
        self.busy.set()
        try:
            with heard(self._hear):
                return Answer(pickle.dumps(WORKS[work](self.base, *map(unpacked, given))))
        except Exception as error:  # noqa: BLE001  (of whatever kind: it is told of, and the worker goes on)
            return Answer(error=told(error))
        finally:
            self.busy.clear()

    def _hear(self, progress: Progress) -> None:
        self.progress = progress

    def how_far(self) -> Progress | None:
        """Asked beside `do`, as `cancel` is."""
        return self.progress

    def cancel(self) -> None:
        """What the page's cancel does."""
        import comfy.model_management

        if self.busy.is_set():
            comfy.model_management.interrupt_current_processing(True)


class RayEngine:
    """See `cast.pool.Engine`. ray: the module. worker: the class of what runs in a worker's process."""

    def __init__(self, ray: Any, setup: Setup, cluster: Cluster, worker: type[RemoteWorker] = RemoteWorker):
        self.ray, self.setup = ray, setup
        gpus = 0.0 if setup.cpu else cluster.gpus
        have = ray.cluster_resources()
        self.size = cluster.workers or int(have.get("GPU", 0) // gpus if gpus else have.get("CPU", 1))
        if self.size < 1:
            raise ValueError(
                f"Cluster: expected {gpus} GPUs for a worker, got {have.get('GPU', 0)} in all. Lower --gpus, or --cpu."
            )
        # One thread does the work, the other one says how far it is, and cancels.
        self.actor = ray.remote(num_gpus=gpus, num_cpus=1, max_concurrency=2, max_restarts=0)(worker)

    def share(self, value: T) -> T:
        found: T = self.ray.put(pickle.dumps(value))
        return found

    def hire(self) -> tuple[Any, Any]:
        worker = self.actor.remote(self.setup)
        return worker, worker.begun.remote()

    def give(self, worker: Any, work: str, given: tuple[Any, ...]) -> Any:
        # As bytes: with ray:// they pass a process of Ray's that has no ComfyUI, and would read them.
        packed = [one if isinstance(one, self.ray.ObjectRef) else pickle.dumps(one) for one in given]
        return worker.do.remote(work, *packed)

    def wait(self, given: Sequence[Any], seconds: float) -> Collection[Any]:
        done, _ = self.ray.wait([*given], num_returns=1, timeout=seconds)
        return list(done)

    def answer(self, given: Any) -> Answer:
        try:
            answer = Answer(*self.ray.get(given))
        except self.ray.exceptions.RayError as error:
            lines = (str(error).strip() or type(error).__name__).splitlines()
            if getattr(error, "actor_init_failed", False):
                # This pack cannot be imported there: a traceback, whose last line is the reason.
                raise UnfitError(lines[-1][:300]) from error
            # The actor died, its machine went, or Ray ended it as memory ran out there.
            raise LostError(lines[0][:300]) from error
        if answer.unfit:
            raise UnfitError(answer.error)
        return answer if answer.error else Answer(unpacked(answer.result))

    def progress(self, worker: Any) -> Progress | None:
        with suppress(self.ray.exceptions.RayError):
            found = self.ray.get(worker.how_far.remote(), timeout=ASKED)
            return None if found is None else Progress(*found)
        return None

    def cancel(self, worker: Any) -> None:
        worker.cancel.remote()

    def dismiss(self, worker: Any) -> None:
        self.ray.kill(worker)


def unpacked(data: bytes) -> Any:
    """What another process of this cluster packed, as Ray itself would pack it."""
    return pickle.loads(data)  # noqa: S301  (never a file's)


@contextmanager
def connected(cluster: Cluster, setup: Setup, worker: type[RemoteWorker] = RemoteWorker) -> Iterator[Pool[Any, Any]]:
    """A pool of the cluster's workers. ValueError without Ray, or where none answers at the address."""
    _bring_token(cluster.address)
    ray = _ray()
    known = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, (str(PACK), os.environ.get("PYTHONPATH"))))}}
    try:
        _connect(ray, cluster, known)
    except Exception as error:  # Ray raises its plain Exception where it cannot start in time
        raise ValueError(
            f"Cluster: expected a Ray cluster at {cluster.address}, got: {told(error)}. Its port must be open to this "
            f"machine, Ray and Python of one version on both, and its token, if it wants one, in {TOKEN} here."
        ) from error
    # So that what ends this process ends the workers as Ctrl-C does: they keep what they learnt.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    pool = Pool(RayEngine(ray, setup, cluster, worker))
    try:
        yield pool
    finally:
        pool.close()
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def _bring_token(address: str) -> None:
    """Ray's client, unlike its drivers on the cluster's machines, does not look for a token by itself."""
    has_token = TOKEN.is_file() or os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    if address.startswith("ray://") and has_token:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _connect(ray: Any, cluster: Cluster, runtime: dict[str, Any]) -> None:
    given = {"runtime_env": runtime, "log_to_driver": False, "logging_level": "ERROR"}
    # Ray's own "auto" would also join what another driver has started for itself, and end with it.
    address = os.environ.get("RAY_ADDRESS", LOCAL) if cluster.address == AUTO else cluster.address
    if address == LOCAL:
        given["include_dashboard"] = False
        # Without this a machine of one core would have room for one.
        given |= {"num_cpus": cluster.workers} if cluster.workers else {}
    ray.init(address=address, **given)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"--cluster: expected Ray, which is not installed. {INSTALL}") from error
    return ray
