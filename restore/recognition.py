"""Whose weights these are: the architecture that claims them, and the settings that they tell."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import ItemsView, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from restore.archs import ARCHS
from restore.archs._blocks import IgnoresDerived
from restore.archs._spec import ArchConfig, ArchSpec, Reading
from restore.checkpoint import Checkpoint
from restore.errors import CheckpointError, UsageError, printable
from restore.official import published_as

# what reading or building raises where keys, shapes or given settings name no network
UNBUILDABLE = (
    KeyError,
    IndexError,
    ValueError,
    ZeroDivisionError,
    OverflowError,
    RuntimeError,  # of PyTorch: negative or enormous sizes
    MemoryError,
    StopIteration,
)
SHOWN = 4  # keys named in a message before "and N more"
SHOWN_READ = 12  # the same, of keys that settings were read from
NEAR = 0.25  # share of the kinds of keys above which another network's are said to be near
SHALLOW = 2  # blocks that have all kinds of keys: a plain and a shifted one


class Seen(Mapping[str, Tensor]):
    """A state dict that remembers which tensors were asked for by name."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state
        self.asked: dict[str, tuple[int, ...]] = {}

    def __getitem__(self, key: str) -> Tensor:
        value = self._state[key]
        self.asked[key] = tuple(value.shape)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def items(self) -> ItemsView[str, Tensor]:
        """All of them; looking through them asks for none."""
        return self._state.items()

    def why(self, error: Exception) -> str:
        """An error of reading in words, with keys and shapes of what was read where it has none."""
        if isinstance(error, KeyError):
            return f"lacks {error}"
        text = str(error)
        if not self.asked or any(key in text for key in self.asked):
            return text
        # one of a kind, and all that differ from it
        different = {(_kind(key), shape): key for key, shape in reversed(self.asked.items())}
        read = [f"{key} {shape}" for (_, shape), key in reversed(different.items())]
        return f"{text}; as read from {_some(read, SHOWN_READ)}"


def candidates(arch: str | None) -> tuple[ArchSpec, ...]:
    """The architectures of a name or family, or all; UsageError if there is none of that name."""
    if arch is None:
        return ARCHS

    def plain(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "")

    named = tuple(s for s in ARCHS if plain(arch) in (plain(s.name), plain(s.family)))
    if not named:
        names = [s.name for s in ARCHS]
        near = difflib.get_close_matches(arch, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"arch is {arch!r}; expected one of {', '.join(names)}{hint}")
    return named


def recognise(
    checkpoint: Checkpoint, specs: tuple[ArchSpec, ...], given: Mapping[str, Any]
) -> tuple[ArchSpec, Reading, nn.Module]:
    """The architecture that the weights fit, its settings, and its network without values.

    Args:
        checkpoint: keys under official names.
        specs: the architectures to try.
        given: settings that count before what the weights and their file say.

    Raises:
        CheckpointError: none fits; the message says which keys and shapes, and the nearest family.
        UsageError: a setting of `given` names no network, or one fits but for `given`.
    """
    claiming = [spec for spec in specs if spec.claims(checkpoint.state)]
    refusals: list[str] = []
    for spec in claiming:
        found = _fitted(spec, checkpoint, given)
        if not isinstance(found, str):
            return spec, *found
        refusals.append(found)
    if refusals:
        told = printable(" | ".join(refusals))
        if given and any(_fits(spec, checkpoint) for spec in claiming):
            raise UsageError(f"{checkpoint.source}: fits only without the given settings: {told}")
        raise CheckpointError(f"{checkpoint.source}: fits no known network: {told}")
    others = [spec.name for spec in ARCHS if spec.claims(checkpoint.state)]
    if others:  # so the caller has named another
        raise CheckpointError(
            f"{checkpoint.source}: is not for arch {' or '.join(s.name for s in specs)}: its "
            f"keys are those of {' or '.join(others)}; leave arch out"
        )
    raise CheckpointError(f"{checkpoint.source}: {_nearest(checkpoint.state)}")


def _fitted(
    spec: ArchSpec, checkpoint: Checkpoint, given: Mapping[str, Any]
) -> tuple[Reading, nn.Module] | str:
    """An architecture's settings and network for weights that it claims, or why they do not fit."""
    seen = Seen(checkpoint.state)
    where = f"{checkpoint.source}: {spec.name}"
    stored = {name: value for name, value in checkpoint.config.items() if name not in given}
    try:
        reading = spec.read_config(seen)
        settings = reading.config.replaced(stored, where).replaced(given, where, UsageError)
        net = _empty(spec, settings)
    except UsageError:  # a ValueError too
        raise
    except UNBUILDABLE as error:
        return f"nearest family {spec.family} ({spec.name}): {seen.why(error)}"
    overruled = _overruled(reading.config, settings)
    misfits = _misfits(net, checkpoint.state)
    if misfits:
        return (
            f"nearest family {spec.family} ({spec.name}), but {'; '.join((*misfits, *overruled))}"
        )
    return Reading(settings, (*reading.evidence, *overruled), reading.doubts), net


def _fits(spec: ArchSpec, checkpoint: Checkpoint) -> bool:
    """Whether the weights fit where nothing is given."""
    try:
        return not isinstance(_fitted(spec, checkpoint, {}), str)
    except CheckpointError:  # of what their file says
        return False


def with_likely_patch(
    spec: ArchSpec, config: ArchConfig, state: Mapping[str, Tensor]
) -> tuple[ArchConfig, tuple[str, ...], bool]:
    """Settle the training patch, for which masks are stored, where no stored mask tells it.

    It is that of the published models of these settings, if they all have the same.

    Returns:
        The settings; the patch in a sentence, if it is not from the masks; and whether it is no
        more than the default.
    """
    masks = {k: b.shape for k, b in spec.derived(config).items() if ".attn_mask" in k}
    if not masks or any(k in state and state[k].shape == masks[k] for k in masks):
        return config, (), False
    sizes = {model.config["img_size"] for model in published_as(spec, config)}
    if len(sizes) != 1:
        text = f"no attn_mask tells img_size: {config['img_size']} is a guess"
        return config, (text,), True
    config = config.replaced({"img_size": sizes.pop()}, spec.name)
    text = f"no attn_mask tells img_size: {config['img_size']}, as of the published models"
    return config, (text,), False


def malformed_buffers(
    spec: ArchSpec, config: ArchConfig, state: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Which stored buffers are none, whatever patch they are for, in a sentence."""
    found = [
        f"{key} is {tuple(state[key].shape)}, expected {len(buffer.shape)} sides"
        for key, buffer in spec.derived(config).items()
        if key in state and (state[key].dim() != len(buffer.shape) or 0 in state[key].shape)
    ]
    return (f"ignored, as computed anyway: {_some(found)}",) if found else ()


def _overruled(read: ArchConfig, settings: ArchConfig) -> tuple[str, ...]:
    """What `config=` or a file's metadata says otherwise than was read, in a sentence."""
    others = [f"{key} {settings[key]}" for key in settings if settings[key] != read[key]]
    return (f"given, and counts before what was read: {', '.join(others)}",) if others else ()


class _WithoutValues(TorchFunctionMode):
    """Leaves out what makes first values, of which tensors on "meta" hold none.

    PyTorch would load its compiler for them, which takes seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Give back what was to be drawn as it is; call everything else."""
        given = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return given["tensor"] if "tensor" in given else args[0]
        return (torch.empty if func is torch.randn else func)(*args, **given)


def _empty(spec: ArchSpec, config: ArchConfig) -> nn.Module:
    with torch.device("meta"), _WithoutValues():
        return spec.build(config)


def derived_keys(net: nn.Module) -> set[str]:
    """Keys of tensors that follow from the settings, which official files also hold."""
    return {
        f"{path}.{name}" if path else name
        for path, module in net.named_modules()
        if isinstance(module, IgnoresDerived)
        for name in module.derived
    }


def _misfits(net: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """What is missing, unknown or of another shape, a sentence each."""
    wanted = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    derived = derived_keys(net)
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted and key not in derived]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, expected {shape}"
        for key, shape in wanted.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    kinds = [("missing", missing), ("unknown", unknown), ("of another shape", shapes)]
    return [f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in kinds if keys]


def _some(keys: list[str], shown: int = SHOWN) -> str:
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return printable(", ".join(keys[:shown])) + more


def _nearest(state: Mapping[str, Tensor]) -> str:
    """Why nothing claims these keys, with the architecture that shares most kinds of them."""
    found = {_kind(key) for key in state}
    wanted = {spec: kinds_of(spec) for spec in ARCHS}
    shared = {spec: len(found & kinds) / len(found | kinds) for spec, kinds in wanted.items()}
    best = max(shared, key=lambda spec: shared[spec])
    near = "; near to none of those known"
    if shared[best] >= NEAR:
        lacking, more = sorted(wanted[best] - found), sorted(found - wanted[best])
        near = f"; nearest family {best.family} ({best.name})"
        near += f", lacking {_some(lacking)}" if lacking else ""
        near += f", and it does not know {_some(more)}" if more else ""
    return (
        f"no known architecture claims its {len(state)} tensors ({_some(sorted(state))}){near}; "
        f"known: {', '.join(spec.name for spec in ARCHS)}"
    )


@functools.cache
def kinds_of(spec: ArchSpec) -> frozenset[str]:
    """The kinds of keys of an architecture, from its smallest network of default settings."""
    config = spec.config()
    shallow = {
        name: [min(blocks, SHALLOW) for blocks in config[name]]
        for name in ("depths", "depth")
        if name in config
    }
    net = _empty(spec, config.replaced(shallow, spec.name))
    return frozenset(_kind(key) for key in net.state_dict())


def _kind(key: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", key)
