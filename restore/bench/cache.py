"""Pictures that are scored already, each under the hash of all that its score depends on.

A picture is found again only where the weights, both files of the picture, every setting, the
device, the versions and the code that computes are what they were: nothing else is ever mixed in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch

from restore import __version__
from restore.atomic import atomic_output, writing
from restore.errors import ImageError
from restore.kernels.native_library import FILE, ISAS, bfloat16_refuses, library
from restore.model import Model

_HOME = Path(__file__).parents[1]
# what results and scores are computed by, of this package
_COMPUTES = (
    *("archs", "kernels", "upscaling", "image_io", "metrics", "metrics.py"),
    *("model.py", "padding.py", "resizing.py", "bench/protocols.py", "bench/scores.py"),
    *("datasets/degradations.py", "datasets/images.py", "datasets/single.py"),
    "datasets/validation.py",
)
_SUFFIXES = (".py", ".cpp", ".h")


class Cache:
    """A folder of small files, one for each picture that is done.

    Args:
        folder: made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was kept under a key; None where nothing was, or its file is damaged."""
        try:
            content = json.loads(self._path(key).read_text(encoding="utf-8"))
            same = content["key"] == json.loads(_text(key))
            value: dict[str, Any] | None = content["value"] if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return value if isinstance(value, dict) else None

    def keep(self, key: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        """Keep a value under a key; OutputError where it cannot be written."""
        path = self._path(key)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(path) as file, writing(path):
            file.write((_text({"key": key, "value": value}) + "\n").encode())

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self._folder / f"{hashlib.sha256(_text(key).encode()).hexdigest()}.json"


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def file_digest(path: Path) -> str:
    """SHA-256 of a file; ImageError where it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    return found.hexdigest()


def model_digest(model: Model) -> str:
    """SHA-256 of a model's architecture, configuration and weights, however they are stored."""
    found = hashlib.sha256(_text({"arch": model.arch, "config": dict(model.config)}).encode())
    for name, value in sorted(model.module.state_dict().items()):
        # bytes, as NumPy has no bfloat16
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(np.ascontiguousarray(data.numpy()).data)
    return found.hexdigest()


@cache
def versions() -> dict[str, str]:
    """Of what computes: this package, its code and native library, and the libraries beneath."""
    found = hashlib.sha256()
    for name in _COMPUTES:
        # the links of a checkout are followed, as their folders are what runs
        top = _HOME / name
        inside = sorted(p for p in top.glob("**/*") if p.suffix in _SUFFIXES)
        for path in [top] if top.is_file() else inside:
            found.update(path.relative_to(_HOME).as_posix().encode() + path.read_bytes())
    return {
        "restore": __version__,
        "code": found.hexdigest()[:16],
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "native": native_library(),
    }


def native_library() -> str:
    """Digest and instruction sets of the library that computes on CPUs; "none" without it."""
    try:
        isa = library().isa
    except LookupError:
        return "none"
    more = "" if bfloat16_refuses() else ", bfloat16"
    return f"{file_digest(FILE)[:16]} {ISAS[isa]}{more}"
