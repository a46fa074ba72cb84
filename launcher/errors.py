"""The one exception the launcher shows to the user without a traceback."""

from __future__ import annotations


class LauncherError(Exception):
    """Something the user can act upon: the message says what happened and what to do."""
