"""Pinned memory: there is none, which ComfyUI copes with."""

from __future__ import annotations

from typing import Any, NoReturn


class HostBuffer:
    size = 0

    def __init__(self, *_args: Any, **_named: Any): ...

    def extend(self, *_args: Any, **_named: Any) -> NoReturn:
        raise RuntimeError("no pinned memory")

    def truncate(self, *_args: Any, **_named: Any) -> None: ...

    def get_raw_address(self) -> int:
        return 0


def cleanup_file_reader() -> None: ...


def read_file_to_device(*_args: Any, **_named: Any) -> NoReturn:
    raise RuntimeError("no device but the CPU")
