"""Files that runs leave in their folder, so that none of an earlier run stays beside newer ones.

A list in the cache's folder holds the name and SHA-256 of each. What was changed since is not
touched: it is no longer of a run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from restore.atomic import atomic_output, writing
from restore.bench.cache import file_digest
from restore.errors import ImageError

_LIST = Path("cache", "outputs.json")


class Outputs:
    """The files of one run.

    Args:
        folder: of the results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = self._read()

    def begin(self, keep: Iterable[str] = ()) -> None:
        """Remove what earlier runs left, but for the files of these names."""
        for name in sorted(set(self._known) - set(keep)):
            digest = self._known.pop(name)
            path = self._folder / name
            with contextlib.suppress(ImageError):  # gone already
                if file_digest(path) == digest:
                    with writing(path):
                        path.unlink()
        self._write()

    def add(self, path: Path) -> Path:
        """Note a file of this run, just written; the same path."""
        self._known[path.relative_to(self._folder).as_posix()] = file_digest(path)
        self._write()
        return path

    def _read(self) -> dict[str, str]:
        try:
            content = json.loads((self._folder / _LIST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict):
            return {}
        # names alone: a list that was tampered with must not reach beyond the folder
        return {
            name: digest
            for name, digest in content.items()
            if isinstance(digest, str) and Path(name).name == name
        }

    def _write(self) -> None:
        path = self._folder / _LIST
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(path) as file, writing(path):
            file.write((json.dumps(self._known, indent=1, sort_keys=True) + "\n").encode())
