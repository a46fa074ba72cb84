"""Keeps two runs apart. The operating system holds the lock, so a dead process cannot."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..terminal import activity

POLL_SECONDS = 0.5

if sys.platform == "win32":
    import msvcrt

    # Windows makes locked bytes unreadable: lock one far behind the text that says who holds the lock.
    LOCKED_BYTE = 1 << 20

    def _try_lock(handle: int) -> bool:
        os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _holder(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace").strip() or "unknown"


def _wait(handle: int, path: Path) -> None:
    if _try_lock(handle):
        return
    with activity(f"waiting for process {_holder(path)}, which is preparing the same folder"):
        while not _try_lock(handle):
            time.sleep(POLL_SECONDS)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock file `path` while the body runs; waits, and says so, while another run holds it.

    The file stays on disk. It is the lock on it that counts, and that one ends with its process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait(handle, path)
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, str(os.getpid()).encode("ascii"))
        yield
    finally:
        os.close(handle)
