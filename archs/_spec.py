"""What the registry knows of an architecture, and the base of its configuration."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from restore.errors import CheckpointError, RestoreError

StateDict = Mapping[str, Tensor]
C = TypeVar("C", bound="ArchConfig")

# Least and most of factors and ratios, far beyond all official values. Outside, float32 overflows
# or a network outgrows every machine.
LIMITS = {
    "img_range": (1 / 65535, 65535.0),
    "qk_scale": (1e-4, 100.0),
    "conv_scale": (-100.0, 100.0),
    "mlp_ratio": (0.0, 1000.0),
    "overlap_ratio": (0.0, 10.0),
}
LARGEST = 2**20  # of whole numbers
MOST_BLOCKS = 1000  # in a network; official ones have 72 at most


@dataclass(frozen=True)
class ArchConfig(Mapping[str, Any]):
    """Constructor values under their official names; also a read-only mapping of them.

    As attributes sequences are tuples; as a mapping (`config["depths"]`, `dict(config)`) they are
    lists, as option files write them.
    """

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError). Families say more than types do."""
        for name in self:
            value = getattr(self, name)
            limits = LIMITS.get(name)
            if limits and value is not None and not limits[0] <= value <= limits[1]:
                raise ValueError(f"{name} is {value:g}; expected {limits[0]:g} to {limits[1]:g}")
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(n, int) and abs(n) > LARGEST for n in numbers):
                raise ValueError(f"{name} is {self[name]}; expected {LARGEST} at most")
        for name in ("depths", "depth"):
            if sum(self.get(name, ())) > MOST_BLOCKS:
                raise ValueError(f"{name} is {self[name]}; expected {MOST_BLOCKS} blocks at most")

    def __getitem__(self, name: str) -> Any:
        """One value by its official name."""
        if name not in _names(type(self)):
            raise KeyError(name)
        value = getattr(self, name)
        return list(value) if isinstance(value, tuple) else value

    def __iter__(self) -> Iterator[str]:
        """The official names, in the constructor's order."""
        return iter(_names(type(self)))

    def __len__(self) -> int:
        """How many values there are."""
        return len(_names(type(self)))

    def replaced(
        self: C,
        values: Mapping[str, Any],
        where: str,
        mistake: type[RestoreError] = CheckpointError,
    ) -> C:
        """A copy with some values replaced.

        Args:
            values: official constructor name to value; lists where the constructor takes lists.
            where: named in messages.
            mistake: what is raised, by whose values they are: a file's or the caller's.

        Raises:
            mistake: a name that the constructor does not have, or a value it cannot take.
        """
        for name, value in values.items():
            if refusal := self.refusal(name, value):
                raise mistake(f"{where}: config {refusal}")
        changes = {name: frozen(value) for name, value in values.items()}
        try:
            return dataclasses.replace(self, **changes)
        except ValueError as error:
            others = {
                name: values[name] for name in changes if changes[name] != getattr(self, name)
            }
            raise mistake(f"{where}: config {others} does not fit: {error}") from None

    def refusal(self, name: str, value: Any) -> str | None:
        """Why a value cannot stand under an official name, in words; None if its kind fits."""
        names = _names(type(self))
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            return f"has no {name!r}; {hint}known: {', '.join(names)}"
        kind = get_type_hints(type(self))[name]
        if not _fits(frozen(value), kind):
            return f"{name} is {value!r}; expected {_words(kind)}{self._example(name)}"
        return None

    def _example(self, name: str) -> str:
        """Its value, for messages, where that tells more than its kind does."""
        value = self[name]
        return "" if isinstance(value, (str, bool, NoneType)) else f", such as {value!r}"


def _names(config: type[ArchConfig]) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that a field is declared as; whole numbers are floats too."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if inner:  # a union
        return any(_fits(value, kind) for kind in inner)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is float:
        # not math.isfinite, which fails for whole numbers beyond the largest float
        return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
    return isinstance(value, hint)


# a declared kind, one and several of it, for messages
_KINDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "True or False"),
    str: ("a name", "names"),
    NoneType: ("None", "None"),
}


def _words(hint: Any) -> str:
    """A declared kind, for messages."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(json.dumps(value) for value in inner)}"
    if origin is tuple:
        count = "" if inner[-1] is Ellipsis else f"{len(inner)} "
        return f"a list of {count}{_KINDS[inner[0]][1]}"
    return " or ".join(map(_words, inner)) if inner else _KINDS[hint][0]


def frozen(value: Any) -> Any:
    """Lists of an option file as tuples, at every depth."""
    return tuple(frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Doubt:
    """Something that weights do not tell and that was assumed."""

    fields: tuple[str, ...]  # giving any of these in `config` settles it
    text: str


@dataclass(frozen=True)
class Reading:
    """What a state dict says of its own configuration."""

    config: ArchConfig
    evidence: tuple[str, ...]  # what told what, for people
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True)
class StoredBuffer:
    """A tensor of official files that follows from the settings; a call makes it.

    Its shape stands beside it, since loading asks for nothing else: to trace `make` would load
    PyTorch's compiler, and what a file claims may be too large to make.
    """

    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    def __call__(self) -> Tensor:
        """The tensor, on the CPU."""
        return self.make()


def shape_of(state: StateDict, key: str, expected: str) -> torch.Size:
    """The shape of a tensor, which has as many sides as `expected` names, none of them empty.

    Args:
        state: keys under official names.
        key: of the tensor.
        expected: its shape in words, such as "[embed_dim, in_chans, 3, 3]".

    Raises:
        KeyError: there is no such tensor.
        ValueError: it has another number of sides, or an empty one.
    """
    shape = state[key].shape
    if len(shape) != expected.count(",") + 1 or 0 in shape:
        raise ValueError(f"{key} is {tuple(shape)}; expected {expected}")
    return shape


def count_numbers(state: StateDict, before: str) -> int:
    """How many numbers stand behind a beginning of keys: the blocks behind "latent."."""
    return len({key[len(before) :].split(".")[0] for key in state if key.startswith(before)})


@dataclass(frozen=True)
class InputRule:
    """What sizes a network takes and how far its pixels see.

    multiple: the image is padded to multiples of this many pixels (1: the net pads inside).
    minimum: the smallest side the net itself takes.
    align: tiles that start and end at multiples of it see the windows of the whole image.
    halo: pixels of context on each side that tiles read by default.
    """

    multiple: int
    minimum: int
    align: int
    halo: int


@dataclass(frozen=True)
class PublishedPadding:
    """How the authors' test scripts grow an image before the network and crop after it.

    Published scores depend on it. mode: "reflect" does not repeat the edge pixel, "symmetric"
    does. always: grow by a whole multiple where the image already fits. square: centre the image
    in a square, which goes with zeros alone; else it is grown at the right and bottom.
    """

    mode: Literal["reflect", "symmetric", "zeros"]
    multiple: int
    always: bool = False
    square: bool = False

    def __post_init__(self) -> None:
        """Refuse what no script does (ValueError)."""
        if self.square and self.mode != "zeros":
            raise ValueError(f"square goes with zeros alone; found {self.mode!r}")


def window_size(config: ArchConfig) -> str:
    """The window, in words, of networks with windows of one size or without any."""
    return str(config.get("window_size", "none"))


def no_published_padding(config: Any) -> PublishedPadding | None:
    """For networks that pad inside, or whose scripts pad as `restore.Model` does anyway."""
    return None


@dataclass(frozen=True)
class ArchSpec:
    """One architecture: how to know its weights and how to build its network."""

    name: str  # official class name, as `type:` in option files
    family: str
    paper: str
    licence: str  # of the official weights
    config: type[ArchConfig]
    build: Callable[[Any], nn.Module]
    claims: Callable[[StateDict], bool]  # cheap: is this structure ours?
    read_config: Callable[[StateDict], Reading]
    variant: Callable[[Any], str]  # a person's name for the configuration
    scale: Callable[[Any], int]
    in_channels: Callable[[Any], int]  # of the image that it takes
    input_rule: Callable[[Any], InputRule]
    derived: Callable[[Any], dict[str, StoredBuffer]]  # official buffers, by key
    out_channels: Callable[[Any], int] | None = None  # of the image that it makes, where others
    # of official .pth files: where the weights lie, as the authors' scripts look for them, and
    # what stands before their names
    wrappers: tuple[str, ...] = ("params", "params_ema")
    prefix: str = ""
    published_padding: Callable[[Any], PublishedPadding | None] = no_published_padding
    windows: Callable[[Any], str] = window_size  # in words
    overflows_fp16: bool = False  # measured with trained weights, see docs/precision.md
    decides: str = ""  # what hangs on which of some values is largest, so that rounding may show
