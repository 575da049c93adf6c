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


class DownloadError(RestoreError):
    """A file that could not be brought from its address, or is not what it should be there."""


class OutOfMemoryError(RestoreError):
    """The device has no room even for the smallest tile."""


class VideoError(RestoreError):
    """A video that cannot be read, or that this operation cannot take."""


def printable(line: str) -> str:
    """A line whose file names cannot break it or command the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def shown(value: object, most: int = 80) -> str:
    """Words of a file as a message can hold them: on one line, printable, and not long."""
    text = str(value)
    return printable(text if len(text) <= most else f"{text[: most - 3]}...")
