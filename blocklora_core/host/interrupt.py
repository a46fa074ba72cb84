"""ComfyUI's cancel button, heard in the core's long computations."""

from __future__ import annotations

from contextlib import AbstractContextManager

import comfy.model_management

from ..cancel import listening


def check_cancel() -> None:
    """ComfyUI's InterruptProcessingException when the user has pressed cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def cancellable() -> AbstractContextManager[None]:
    """While the block runs, computations of the core end with ComfyUI's InterruptProcessingException on a cancel."""
    return listening(check_cancel)
