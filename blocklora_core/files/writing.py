"""Bytes onto the disk: whole or not at all, never two writers in one file, nothing left behind."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .untrusted.folders import files_below
from .untrusted.header import FileError

TEMPORARY = ".blocklora-tmp"
"""End of the names of files that are being written: .<machine>-<process>-<random>.blocklora-tmp."""


def _place() -> str:
    """What counts processes: a machine, or one container of it."""
    try:
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()


_MACHINE = hashlib.sha256(_place().encode()).hexdigest()[:8]
_STALE = 24 * 3600
"""Seconds after which a file that another machine's process began is nobody's."""


_FULL = {errno.ENOSPC, errno.EDQUOT}


class WriteError(FileError, OSError):
    """The system does not take a file; says why."""


class FullDiskError(WriteError):
    """As no room is left for it."""


@contextmanager
def taken(path: Path, size: int) -> Iterator[None]:
    """WriteError for an OSError of the block, which writes `size` bytes to `path`."""
    try:
        yield
    except OSError as error:
        raise (FullDiskError if error.errno in _FULL else WriteError)(
            f"{path}: expected to write {size} bytes, got: {error.strerror or error}. Make room on the disk, see to "
            "its permissions, or choose another name."
        ) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` beside `path` and moves it there, so that no half-written file is ever seen.

    Folders are made; the mode follows the umask. WriteError when the system does not take it; nothing is left then.
    """
    with _written_beside(path, data) as temporary:
        temporary.replace(path)


def write_new(path: Path, data: bytes) -> bool:
    """As `write_atomic`, but never over another file: False when there is one, whoever else writes at this moment."""
    with _written_beside(path, data) as temporary:
        try:
            # The file appears whole, or the name is taken.
            os.link(temporary, path)
        except FileExistsError:
            return False
        except (OSError, AttributeError):  # a file system without hard links
            return _claimed(path, temporary)
        return True


def _claimed(path: Path, temporary: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        temporary.replace(path)
    except OSError:
        path.unlink()
        raise
    return True


@contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    # Short, as the name of `path` may be as long as the system takes.
    temporary = path.with_name(f".{_MACHINE}-{os.getpid()}-{secrets.token_hex(8)}{TEMPORARY}")
    try:
        with taken(path, len(data)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep(folders: Iterable[Path]) -> list[Path]:
    """Removes what writers that were killed left at and below `folders`; gives what was removed."""
    left = [path for path in files_below(folders, TEMPORARY) if _is_leftover(path)]
    for path in left:
        with suppress(OSError):
            path.unlink()
    return left


def _is_leftover(path: Path) -> bool:
    machine, _, rest = path.name.removeprefix(".").partition("-")
    process = rest.partition("-")[0]
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _STALE:
            return True
    return machine == _MACHINE and process.isdecimal() and not _is_running(int(process))


def _is_running(process: int) -> bool:
    if os.name == "nt":  # There, this question would end the process.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
