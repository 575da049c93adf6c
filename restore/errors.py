"""Errors that a user can do something about.

Every message says where (file, argument or key), what was found, what was expected and what to do.
The command line prints the message alone; a traceback means a defect of this program.
"""

from __future__ import annotations


class RestoreError(Exception):
    """Base of every error that this package raises on purpose."""


class UsageError(RestoreError, ValueError):
    """An argument or option that cannot be obeyed (exit code 2 on the command line)."""


class CheckpointError(RestoreError):
    """A weight file or state dict that cannot be read, recognised or fitted."""


class ImageError(RestoreError):
    """A picture that cannot be read, or that this operation cannot take."""


class OutputError(RestoreError):
    """A result that could not be written; no partial file is left behind."""


class OutOfMemoryError(RestoreError):
    """The device has no room even for the smallest tile."""


class VideoError(RestoreError):
    """A video that cannot be read, or that this operation cannot take."""
