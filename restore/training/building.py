"""The networks of a run, with the weights that it begins from."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from restore.archs.unet_discriminator import UNetDiscriminatorSN
from restore.checkpoint import read_checkpoint
from restore.errors import CheckpointError, UsageError
from restore.loading import PartlyLoadedWarning
from restore.model import Model
from restore.recognition import derived_keys
from restore.rescaling import in_words, transplanted
from restore.training.networks import described
from restore.training.options import NetworkOptions

# the names under which official files have the switch that recomputes activations
_RECOMPUTE = ("use_checkpoint", "use_chk")


class OtherKeyWarning(UserWarning):
    """A weight file lacks the key that was asked for, and other weights of it were taken."""


def build_generator(options: NetworkOptions, scale: int, *, checkpointing: bool = False) -> Model:
    """The network to train, with random weights, on the CPU and in training mode.

    Args:
        options: official type and constructor arguments.
        scale: of the option file, which has to be the network's.
        checkpointing: recompute activations in the backward pass.

    Raises:
        UsageError: no such network, arguments that it does not have, or another scale.
    """
    spec, config = described(options)
    where = f"{options.where()}: network_g of type {spec.name}"
    if checkpointing:
        names = [name for name in _RECOMPUTE if name in config]
        if not names:
            raise UsageError(f"{where}: has no checkpointing; set train: checkpointing: false")
        config = config.replaced({names[0]: True}, where, UsageError)
    if spec.scale(config) != scale:
        raise UsageError(
            f"{where}: enlarges {spec.scale(config)} times, but scale is {scale}; make them equal"
        )
    return Model(spec, config, spec.build(config).train(), name=spec.name)


def build_discriminator(options: NetworkOptions) -> UNetDiscriminatorSN:
    """The discriminator, with random weights.

    Raises:
        UsageError: no such network, or arguments that it does not have.
    """
    where = f"{options.where()}: network_d"
    if options.type != "UNetDiscriminatorSN":
        raise UsageError(f"{where} type is {options.type!r}; expected UNetDiscriminatorSN")
    values = {"num_feat": 64, "skip_connection": True, **options.arguments}
    unknown = values.keys() - {"num_in_ch", "num_feat", "skip_connection"}
    if unknown or "num_in_ch" not in values:
        raise UsageError(
            f"{where} has {', '.join(sorted(options.arguments))}; expected num_in_ch and perhaps "
            "num_feat and skip_connection"
        )
    return UNetDiscriminatorSN(
        int(values["num_in_ch"]), int(values["num_feat"]), bool(values["skip_connection"])
    )


def load_weights(
    network: nn.Module, path: Path, key: str | None, *, strict: bool, may_lack: bool = False
) -> str:
    """Put the weights of a file into a network.

    Args:
        network: on any device.
        path: a weight file.
        key: where they lie in it, such as "params_ema"; where it has none, "params" is taken.
        strict: every tensor has to fit; else those that do not keep the network's own values.
        may_lack: say nothing where the file lacks the key.

    Returns:
        Under which key they lay in it; "": it holds weights alone.

    Raises:
        CheckpointError: the file cannot be read, or does not fit.

    Warns:
        OtherKeyWarning: the file lacks the key (but for "params", which bare files have not).
        PartlyLoadedWarning: which tensors keep their values, and which of the file are left out.
    """
    checkpoint = read_checkpoint(path, key)
    if key is not None and checkpoint.key != key and checkpoint.key != "params":
        checkpoint = read_checkpoint(path, "params")
    if key not in (None, "params", checkpoint.key) and not may_lack:
        taken = f"{checkpoint.key!r} is taken" if checkpoint.key else "it holds weights alone"
        warnings.warn(f"{path}: has no {key!r}; {taken}", OtherKeyWarning, stacklevel=2)
    derived = derived_keys(network)
    state: dict[str, Tensor] = {
        name: value for name, value in checkpoint.state.items() if name not in derived
    }
    fitting, new, left_out = transplanted(network, state)
    if new or left_out:
        own = network.state_dict()
        text = f"new: {in_words(new, own)}; left out: {in_words(left_out, state)}"
        if strict:
            raise CheckpointError(
                f"{path}: does not fit the network: {text}; correct network_g, or set "
                "strict_load_g: false to keep what fits"
            )
        kept = f"{len(own) - len(new)} of the network's {len(own)} tensors are the file's"
        warnings.warn(f"{path}: loaded in part: {kept}; {text}", PartlyLoadedWarning, stacklevel=2)
    network.load_state_dict(fitting)
    return checkpoint.key


def holds_another(path: Path, key: str, other: str) -> bool:
    """Whether a weight file holds weights under both keys, and these differ.

    Raises:
        CheckpointError: the file cannot be read.
    """
    first, second = read_checkpoint(path, key), read_checkpoint(path, other)
    if (first.key, second.key) != (key, other):
        return False
    a, b = first.state, second.state
    return a.keys() != b.keys() or not all(torch.equal(a[name], b[name]) for name in a)
