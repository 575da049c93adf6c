"""Weight files: from a path to a flat state dict of tensors, and nothing else."""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load as loaded_safetensors
from torch import Tensor

from restore.errors import CheckpointError, shown
from restore.special_files import special_file
from restore.untrusted import MOST_RATIO, ROOM, check_pickled, holds_more, no_weights

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
MOST_PREFIXES = 10  # one before the other
_LONGEST_SETTINGS = 4000  # characters; those of the largest network are 700
LONGEST_NAME = 300  # of a tensor; official ones have 100 characters at most
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
        if special := special_file(path):
            raise CheckpointError(f"{path}: is {special}, no file; name a weight file")
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
    return _in_proportion(unwrap(_read_pickle(path), str(path), {}, key), path)


def looks_like_weights(path: Path) -> bool:
    """Whether a file begins as weight files do, whatever its name."""
    try:
        if special_file(path):
            return False
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
        if not _has_plain_name(path):
            # the reader takes paths in UTF-8 alone; it keeps no words of the header then
            return loaded_safetensors(path.read_bytes()), {}
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    # of types that this PyTorch lacks, and sizes that it cannot count, nearly anything
    except Exception as error:
        raise CheckpointError(
            f"{path}: is no whole safetensors file ({shown(_reason(error), 160)}); download or "
            "copy it again"
        ) from error
    return tensors, _settings(metadata) if MARK in metadata else {}


def _reason(error: Exception) -> str:
    """An error of a reader in its own words, where those are for people."""
    strerror = getattr(error, "strerror", None)
    text = (strerror or str(error)).strip().partition("\n")[0]
    text = re.sub(r"^\[enforce fail at [^\]]*\][ .]*", "", text)
    told = isinstance(error, (OSError, RuntimeError)) or type(error).__name__ == "SafetensorError"
    return text if told and text else "its parts contradict each other"


def _has_plain_name(path: Path) -> bool:
    """Whether a name is text; on Linux it may be any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The constructor values that a file of ours holds."""
    text = metadata.get("config", "{}")
    try:
        config = json.loads(text) if len(text) <= _LONGEST_SETTINGS else {}
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _read_pickle(path: Path) -> Any:
    try:
        # newer releases look at a path's suffix, not at the content
        plain = path.suffix != ".safetensors" and _has_plain_name(path)
        mapped = check_pickled(path) and plain
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on storage formats, of no use to a user
            # buffers that no network needs, a gigabyte in some files, then stay on the disk
            source: Any = path if mapped else file
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        wanted = sorted(set(re.findall(r"GLOBAL ([\w.]+\.\w+)", str(error))))
        if wanted:
            raise holds_more(path, wanted) from None
        raise no_weights(path, "not in PyTorch's format") from None
    except OSError as error:  # from a seek beyond the end
        raise no_weights(path, "it is cut short") from error
    # a damaged pickle can raise nearly anything from deep inside the reader
    except Exception as error:
        raise no_weights(path, _reason(error)) from error


def _in_proportion(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """The same, unless its tensors claim more numbers than the file can hold.

    One stored number may stand for any count of them, in a tensor of stride 0.
    """
    claimed = sum(t.numel() * t.element_size() for t in checkpoint.state.values())
    size = os.path.getsize(path)
    if claimed > ROOM + MOST_RATIO * size:
        raise no_weights(path, f"{size:,} bytes claim to hold tensors of {claimed:,}")
    return checkpoint


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
    content = _without_attributes(content)
    if wanted and isinstance(content, Mapping) and isinstance(content.get(wanted), Mapping):
        others = [k for k in _weights_in(content) if k != wanted]
        content, key, depth = _without_attributes(content[wanted]), wanted, 1
    while isinstance(content, Mapping):
        # before bare tensors: trainers keep step counters beside the weights
        inside = _weights_in(content) or [
            k for k in WRAPPERS if isinstance(content.get(k), Mapping)
        ]
        inner = inside[0] if inside else None
        if inner is not None and depth < MOST_WRAPPERS:
            others += [k for k in inside[1:] if k not in others]
            content, key, depth = _without_attributes(content[inner]), inner, depth + 1
            continue
        tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
        tensors.pop("n_averaged", None)  # torch.optim.swa_utils.AveragedModel counts here
        if tensors and all(isinstance(k, str) for k in tensors):
            state = without_prefixes({k: _plain(v, k, source) for k, v in tensors.items()})
            return Checkpoint(source, state, key, config, tuple(others))
        break
    found = (
        f"keys {', '.join(shown(repr(k)) for k in list(content)[:5])}"
        if isinstance(content, Mapping) and content
        else "an empty dict"
        if isinstance(content, Mapping)
        else "nothing"
        if content is None
        else type(content).__name__
    )
    raise CheckpointError(
        f"{source}: holds no state dict: found {found}; expected tensors by name, bare or under "
        f"one of {', '.join(WRAPPERS)}"
    )


def _without_attributes(content: Any) -> Any:
    """A dict's items alone: files may give it attributes that stand before its methods."""
    return dict(dict.items(content)) if isinstance(content, dict) else content


def _plain(tensor: Tensor, name: str, source: str) -> Tensor:
    """A tensor's values without attributes; CheckpointError for a kind that no network has."""
    if len(name) > LONGEST_NAME:
        raise CheckpointError(
            f"{source}: the name of a tensor has {len(name):,} characters ({shown(name)}); "
            f"expected {LONGEST_NAME} at most"
        )
    try:
        plain = torch.Tensor.detach(tensor)
        if not plain.is_nested:
            return plain
    except (RuntimeError, NotImplementedError):  # of layouts that are half supported
        pass
    raise CheckpointError(f"{source}: {shown(name)} is no plain tensor; expected dense values")


def _weights_in(content: Mapping[Any, Any]) -> list[str]:
    """The keys under which trainers put weights that a mapping has, the first to take first."""
    return [k for k in WRAPPERS if isinstance(content.get(k), Mapping) and content[k]]


def without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what trainers and wrappers put before all its keys."""
    for _ in range(MOST_PREFIXES):
        before = state
        for prefix in PREFIXES:
            if all(key.startswith(prefix) for key in state):
                state = {key[len(prefix) :]: value for key, value in state.items()}
        if state is before:
            break
    return state
