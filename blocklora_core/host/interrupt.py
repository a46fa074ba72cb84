"""ComfyUI's cancel button, heard in the core's long computations."""

from __future__ import annotations

from contextlib import AbstractContextManager

import comfy.model_management

from ..cancel import listening


def cancellable() -> AbstractContextManager[None]:
    """While the block runs, computations of the core end with ComfyUI's InterruptProcessingException on a cancel."""
    return listening(comfy.model_management.throw_exception_if_processing_interrupted)
