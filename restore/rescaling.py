"""Weights of one scale in the network of another: where fine-tuning x4 from x2 begins."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from restore.archs._spec import ArchConfig, ArchSpec
from restore.archs._tails import SCALES
from restore.errors import CheckpointError, UsageError

_TOLD = 6  # keys that a message names


def for_scale(spec: ArchSpec, config: ArchConfig, scale: int, where: str) -> ArchConfig:
    """The same settings for another scale.

    Args:
        spec: whose settings they are.
        config: of the scale that there is.
        scale: wanted.
        where: named in messages.

    Raises:
        UsageError: the architecture with these settings cannot make that scale; the message has
            those that it can.
    """
    possible = {spec.scale(config): config}
    for upscale in sorted({each for scales in SCALES.values() for each in scales}):
        try:
            other = config.replaced({"upscale": upscale}, where)
        except CheckpointError:
            continue
        possible[spec.scale(other)] = other
    if scale not in possible:
        scales = ", ".join(f"x{each}" for each in sorted(possible))
        raise UsageError(
            f"{where}: scale is {scale!r}, but {spec.variant(config)} can be built for {scales}"
            + ("" if len(possible) > 1 else " alone: it has no tail that enlarges")
        )
    return possible[scale]


def transplanted(
    net: nn.Module, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """A state dict for `net`: from `state` whatever fits by name and shape, else its own values.

    Returns:
        The state dict in the order of `net`; the keys whose values are its own; and the keys of
        `state` that it has no place for.
    """
    own = net.state_dict()
    fitting = {key for key, value in state.items() if key in own and value.shape == own[key].shape}
    new = tuple(key for key in own if key not in fitting)
    left_out = tuple(key for key in state if key not in fitting)
    return {key: state[key] if key in fitting else own[key] for key in own}, new, left_out


def in_words(keys: tuple[str, ...], state: Mapping[str, Tensor]) -> str:
    """Keys with their shapes, for messages; of many the first."""
    told = [f"{key} {tuple(state[key].shape)}" for key in keys[:_TOLD]]
    if len(keys) > _TOLD:
        told.append(f"and {len(keys) - _TOLD} more")
    return ", ".join(told) or "none"
