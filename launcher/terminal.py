"""Progress in the terminal: one line that updates on a TTY, plain lines now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

REFRESH_SECONDS = 0.5
PLAIN_SECONDS = 10.0
BAR_WIDTH = 24


def seconds(value: float) -> str:
    """A duration as people read it: `4.2 s`, `51 s`, `3 min 07 s`."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 60:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def bar(done: float, total: float, width: int = BAR_WIDTH) -> str:
    """`[#####-----]  12/24`, filled in proportion; an unknown total gives an empty bar."""
    share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
    filled = round(share * width)
    return f"[{'#' * filled}{'-' * (width - filled)}] {done:g}/{total:g}"


class Activity:
    """One running step: `say` replaces its status; a thread keeps the elapsed seconds moving."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        self.title = title
        self.status = ""
        self.started = time.monotonic()
        self._stream = stream
        self._live = stream.isatty()
        self._shown = self.started
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def say(self, status: str) -> None:
        """Replaces the text after the title."""
        self.status = status

    def start(self) -> None:
        if not self._live:
            self._write(f"{self.title} ...\n")
        self._ticker.start()

    def finish(self, verdict: str) -> None:
        """Leaves one line: the title, the verdict and the time it took."""
        self._stop.set()
        self._ticker.join()
        text = f"{self.title}: {verdict} ({seconds(self.elapsed)})"
        self._write(f"{self._clear()}{text}\n")

    def _tick(self) -> None:
        while not self._stop.wait(REFRESH_SECONDS):
            if self._live:
                self._write(self._clear() + self._line(shutil.get_terminal_size().columns - 1))
            elif time.monotonic() - self._shown >= PLAIN_SECONDS:
                self._shown = time.monotonic()
                self._write(self._line(160) + "\n")

    def _line(self, width: int) -> str:
        return " ".join(part for part in (self.title, seconds(self.elapsed), self.status) if part)[:width]

    def _clear(self) -> str:
        return "\r\x1b[2K" if self._live else ""

    def _write(self, text: str) -> None:
        with self._lock:
            coding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(coding, "replace").decode(coding))
            self._stream.flush()


@contextmanager
def activity(title: str, done: str = "done", stream: TextIO | None = None) -> Iterator[Activity]:
    """Shows a step while its body runs, then `done`, or `failed` when the body raises."""
    shown = Activity(title, stream)
    shown.start()
    try:
        yield shown
    except BaseException:
        shown.finish("failed")
        raise
    shown.finish(done)
