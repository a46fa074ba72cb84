"""A checkpoint mapped into memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref


class ModelMMAP:
    def __init__(self, path: str):
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._map = mmap.mmap(self._file, 0, access=mmap.ACCESS_COPY)

    def get(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def get_file_handle(self) -> int:
        return self._file

    def bounce(self) -> bool:
        return True
