"""The results file: one JSON for any number of machines, written whole after every case."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe
from restore.atomic import atomic_output

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "results"
FORMAT = 1
SECTIONS = ("ops", "networks", "cases")


def code_version(*more: tuple[str, str]) -> str:
    """A digest of what is measured: networks, kernels, what they are compared with, and PyTorch.

    Beside the commit, because a copy without its history, or with changes, has none.

    Args:
        more: folders and patterns of further files.
    """
    digest = hashlib.sha256(f"torch {torch.__version__}, triton {_triton_version()}".encode())
    usual = (("archs", "*.py"), ("kernels", "*.py"), ("benchmarks", "eager*.py"))
    for folder, pattern in (*usual, *more):
        for path in sorted((ROOT / folder).glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _triton_version() -> str:
    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"


def machine_name(device: torch.device) -> str:
    """A short name of what runs, such as "nvidia-h200"."""
    return plain(torch.cuda.get_device_name(device) if device.type == "cuda" else device.type)


def plain(name: str) -> str:
    """A name of small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Results:
    """What has been measured.

    Args:
        path: the JSON; read if it is there.
        machine: whose results are added.
        code: version of what is measured.
    """

    def __init__(self, path: Path, machine: str, code: str) -> None:
        self.path, self.machine, self.code = path, machine, code
        self.data: dict[str, Any] = {"format": FORMAT, "machines": {}}
        if path.exists():
            self.merge(path)

    @property
    def here(self) -> dict[str, Any]:
        """All of this machine: "ops", "networks" and "cases" by key, and "rates"."""
        return _section(self.data["machines"], self.machine)

    def describe(self) -> None:
        """Note what this machine is."""
        self.here["described"] = describe()

    @property
    def rates(self) -> dict[str, Any]:
        """Measured speeds of this machine; grows."""
        return self.here["rates"]

    def merge(self, path: Path) -> None:
        """Take over what another file has; of two entries of a key the newer one.

        Raises:
            ValueError: it is no results file of this format.
        """
        other = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(other, dict) or other.get("format") != FORMAT:
            raise ValueError(f"{path}: no results of benchmarks.gpu, format {FORMAT}")
        for machine, theirs in other["machines"].items():
            ours = _section(self.data["machines"], machine)
            ours["described"] = theirs.get("described", ours.get("described"))
            ours["rates"] = {**theirs["rates"], **ours["rates"]}
            for section in SECTIONS:
                for key, entry in theirs[section].items():
                    known = ours[section].get(key)
                    if known is None or known["at"] < entry["at"]:
                        ours[section][key] = entry

    def get(self, section: str, key: str) -> dict[str, Any] | None:
        """An entry of this machine and of this version of the code, or None."""
        entry: dict[str, Any] | None = self.here[section].get(key)
        return entry if entry is not None and entry["code"] == self.code else None

    def put(self, section: str, key: str, entry: dict[str, Any]) -> dict[str, Any]:
        """Add an entry and write the file."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        entry = {"code": self.code, "at": now, **entry}
        self.here[section][key] = entry
        self.write()
        return entry

    def write(self) -> None:
        """Write the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(self.path) as file:
            file.write((json.dumps(self.data, indent=1) + "\n").encode())

    def machines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All machines by name."""
        yield from sorted(self.data["machines"].items())


def _section(machines: dict[str, Any], name: str) -> dict[str, Any]:
    empty = {"described": None, "rates": {}, **{section: {} for section in SECTIONS}}
    found: dict[str, Any] = machines.setdefault(name, empty)
    return found
