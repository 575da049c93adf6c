"""Weight files: from a path to a flat state dict of tensors, and nothing else."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from restore.errors import CheckpointError

# In the order they are looked for: averaged weights are the ones that papers report.
WRAPPERS = (
    "params_ema",
    "params-ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
)
PREFIXES = ("module.", "netG.", "net_g.", "generator.", "model.", "_orig_mod.")
MOST_WRAPPERS = 8  # one inside the other; a mapping may even hold itself
MARK = "restore"  # key in the metadata of safetensors files of ours; its value is the version


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file or a mapping held."""

    source: str  # file name or "state dict", for messages
    state: dict[str, Tensor]
    key: str  # under which the weights lay; "" if they lay bare
    config: Mapping[str, Any] = field(default_factory=dict)  # that a file of ours also holds
    others: tuple[str, ...] = ()  # keys of other weights beside them


def read_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Read a .pth, .pt, .ckpt or .safetensors file; the content decides which it is.

    Pickles are read with `weights_only=True`: nothing in them is run. Tensors may lie in the file
    itself, mapped to memory: whoever keeps one copies it.

    Args:
        path: the file.
        key: of the weights wanted, where it holds several, such as "params"; None, or where it
            has no such key: those that papers report come first.

    Raises:
        CheckpointError: the file is missing, damaged, no weight file, or a pickle that wants more
            than tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a path that no system has
        raise CheckpointError(f"{str(path)!r}: cannot be read: {error}") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty; download or copy it again")
    if _is_safetensors(head) or (path.suffix == ".safetensors" and not _is_pytorch(head)):
        tensors, config = _read_safetensors(path)
        return unwrap(tensors, str(path), config)
    return unwrap(_read_pickle(path), str(path), {}, key)


def looks_like_weights(path: Path) -> bool:
    """Whether a file begins as weight files do, whatever its name."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:
        return False
    return _is_pytorch(head) or _is_safetensors(head)


def _is_pytorch(head: bytes) -> bool:
    return head.startswith((b"PK", b"\x80"))  # a zip archive, or a bare pickle


def _is_safetensors(head: bytes) -> bool:
    # the length of a JSON header, below 4 GiB, then the header
    return head[4:] == b"\0\0\0\0{"


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: is no whole safetensors file ({error}); download or copy it again"
        ) from error
    return tensors, _settings(metadata) if MARK in metadata else {}


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The constructor values that a file of ours holds."""
    try:
        config = json.loads(metadata.get("config", "{}"))
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _read_pickle(path: Path) -> Any:
    _refuse_lookalikes(path)
    mapped = _can_be_mapped(path)
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on storage formats, of no use to a user
            # buffers that no network needs, a gigabyte in some files, then stay on the disk
            source: Any = path if mapped else file
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        wanted = sorted(set(re.findall(r"GLOBAL ([\w.]+\.\w+)", str(error))))
        if wanted:
            raise CheckpointError(
                f"{path}: holds more than tensors (it wants {', '.join(wanted)}), and reading that "
                "could run code; it is refused. Save its tensors alone, as .safetensors or with "
                "torch.save(model.state_dict(), ...), where you trust the file"
            ) from None
        raise _no_weights(path, "not in PyTorch's format") from None
    except OSError as error:  # from a seek beyond the end
        raise _no_weights(path, "it is cut short") from error
    # a damaged pickle can raise nearly anything from deep inside the reader
    except Exception as error:
        detail = str(error).strip().splitlines()
        told = bool(detail) and not isinstance(error, KeyError)
        raise _no_weights(path, detail[0][:120] if told else "not in PyTorch's format") from error


def _refuse_lookalikes(path: Path) -> None:
    """Say what a file is that is often taken for weights, and what is damaged in an archive."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: is a Git LFS pointer; fetch the file with `git lfs pull`")
    if head.startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path}: is a web page; the download needs a browser or a login")
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names, damaged = archive.namelist(), archive.testzip()
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _no_weights(path, str(error)) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{path}: is a TorchScript program, which is not run; save the state dict of its module"
        )
    if damaged is not None:
        raise _no_weights(path, f"the checksum of {damaged} in it is wrong")


def _can_be_mapped(path: Path) -> bool:
    """Whether PyTorch can read tensors in place: from an archive whose entries are not packed."""
    # newer releases look at a path's suffix, not at the content
    if path.suffix == ".safetensors" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def _no_weights(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: is no whole weight file ({reason}); expected a .pth, .pt, .ckpt or .safetensors "
        "file. Download or copy it again"
    )


def unwrap(
    content: Any, source: str, config: Mapping[str, Any], wanted: str | None = None
) -> Checkpoint:
    """Find the state dict in what a file held, and take off what trainers put around it.

    Args:
        content: of the file.
        source: its name, for messages.
        config: constructor values that it also holds.
        wanted: key of the weights wanted, where there are several; see `read_checkpoint`.

    Raises:
        CheckpointError: there is no mapping of names to tensors in it.
    """
    key, depth, others = "", 0, list[str]()
    if wanted and isinstance(content, Mapping) and isinstance(content.get(wanted), Mapping):
        others = [k for k in _weights_in(content) if k != wanted]
        content, key, depth = content[wanted], wanted, 1
    while isinstance(content, Mapping):
        # before bare tensors: trainers keep step counters beside the weights
        inside = _weights_in(content) or [
            k for k in WRAPPERS if isinstance(content.get(k), Mapping)
        ]
        inner = inside[0] if inside else None
        if inner is not None and depth < MOST_WRAPPERS:
            others += [k for k in inside[1:] if k not in others]
            content, key, depth = content[inner], inner, depth + 1
            continue
        tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
        tensors.pop("n_averaged", None)  # torch.optim.swa_utils.AveragedModel counts here
        if tensors and all(isinstance(k, str) for k in tensors):
            state = without_prefixes({str(k): v for k, v in tensors.items()})
            return Checkpoint(source, state, key, config, tuple(others))
        break
    found = (
        f"keys {', '.join(repr(k) for k in list(content)[:5])}"
        if isinstance(content, Mapping) and content
        else "an empty dict"
        if isinstance(content, Mapping)
        else type(content).__name__
    )
    raise CheckpointError(
        f"{source}: holds no state dict: found {found}; expected tensors by name, bare or under "
        f"one of {', '.join(WRAPPERS)}"
    )


def _weights_in(content: Mapping[Any, Any]) -> list[str]:
    """The keys under which trainers put weights that a mapping has, the first to take first."""
    return [k for k in WRAPPERS if isinstance(content.get(k), Mapping) and content[k]]


def without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what trainers and wrappers put before all its keys."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            if all(key.startswith(prefix) for key in state):
                state = {key[len(prefix) :]: value for key, value in state.items()}
                stripped = True
    return state
