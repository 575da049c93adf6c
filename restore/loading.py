"""From a weight file to a running model."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.checkpoint import Checkpoint, read_checkpoint, unwrap
from restore.devices import resolve_device, resolve_dtype
from restore.errors import CheckpointError, UsageError
from restore.model import Model
from restore.recognition import (
    candidates,
    derived_keys,
    malformed_buffers,
    recognise,
    with_likely_patch,
)
from restore.rescaling import for_scale, in_words, transplanted


class AmbiguousCheckpointWarning(UserWarning):
    """Weights fit more than one network and the documented one was taken."""


class PrecisionWarning(UserWarning):
    """The arithmetic that was asked for cannot hold a network's values and another was taken."""


class PartlyLoadedWarning(UserWarning):
    """A network was built for another scale than its weights', and parts of it are untrained."""


def load(
    path_or_state_dict: str | Path | Mapping[str, Any],
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    arch: str | None = None,
    config: Mapping[str, Any] | None = None,
    scale: int | None = None,
    param_key: str | None = None,
) -> Model:
    """Load weights of any known architecture; family and settings are read from the weights.

    Args:
        path_or_state_dict: a .pth, .pt, .ckpt or .safetensors file; where there is no file of that
            name, a built-in model ("swinir_builtin_x2") or an official one in the cache
            ("HAT-x4"; see `restore models`); or what a file holds: a state dict, bare or under
            its checkpoint key. A mapping is copied, never changed.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: of the arithmetic: "auto" (fp32), "fp32", "fp16", "bf16", "fp64", or as PyTorch
            calls them: "float16", "half", torch.float16.
        arch: official class name ("SwinIR", "HiT_SRF"), to try that one alone.
        config: official constructor names to values, for what weights do not tell (img_range) or
            tell wrongly. They count before what was read.
        scale: to fine-tune weights of one scale to another: output pixels per input pixel of the
            network to build. Where it is not the weights' own, every tensor is taken over whose
            name and shape fit, and the others, all in the tail, are drawn as the network draws
            them (torch.manual_seed makes them the same again): `Model.new_keys` names them, and
            pictures are useless until they are trained.
        param_key: key of the weights to take, where the file holds several, such as "params";
            None: those that papers report, "params_ema" before "params".

    Returns:
        The model, in eval mode.

    Raises:
        CheckpointError: missing, unreadable, not recognised, or not fitting; the message says
            which keys and shapes, and the nearest family.
        UsageError: no such device, dtype or arch, the network cannot be built for `scale`, or
            `config` names no setting, has a value that it cannot have, or contradicts the weights,
            or there is nothing under `param_key`.

    Warns:
        PrecisionWarning: fp16 was asked for and bf16 taken.
        AmbiguousCheckpointWarning: what was assumed where the weights leave two possibilities.
        PartlyLoadedWarning: which tensors are new and which were left out, for another scale.
    """
    on, arithmetic = resolve_device(device), resolve_dtype(dtype)
    if not isinstance(path_or_state_dict, (str, os.PathLike, Mapping)):
        raise UsageError(
            f"load: got a {type(path_or_state_dict).__name__}; expected a path, the name of a "
            "built-in model or a state dict, as module.state_dict() gives"
        )
    _check_settings(arch, config, scale)
    if isinstance(path_or_state_dict, Mapping):
        checkpoint = unwrap(path_or_state_dict, "state dict", {}, param_key)
    else:
        checkpoint = _found(path_or_state_dict, param_key)
    _check_key(checkpoint, param_key)
    name = Path(checkpoint.source).stem if checkpoint.source != "state dict" else "model"
    return _build(checkpoint, name, on, arithmetic, arch, config or {}, scale)


def _check_settings(arch: object, config: object, scale: object) -> None:
    """UsageError with the argument that is of a wrong kind."""
    if not isinstance(arch, (str, type(None))):
        raise UsageError(f"load: arch is {arch!r}; expected a name, such as 'SwinIR', or None")
    if not isinstance(config, (Mapping, type(None))):
        raise UsageError(
            f"load: config is {config!r}; expected a mapping of names to values, such as "
            "{'img_range': 255}, or None"
        )
    if not isinstance(scale, (int, type(None))) or isinstance(scale, bool):
        raise UsageError(f"load: scale is {scale!r}; expected a whole number, or None")


def _check_key(checkpoint: Checkpoint, wanted: str | None) -> None:
    """UsageError where weights lie under another key than the one that was asked for."""
    if wanted in (None, checkpoint.key):
        return
    there = [checkpoint.key, *checkpoint.others] if checkpoint.key else []
    held = f"it has {' and '.join(there)}" if there else "its weights lie under no key"
    raise UsageError(f"{checkpoint.source}: has no weights under {wanted!r}; {held}")


def _found(name: str | Path, key: str | None) -> Checkpoint:
    """The content of the file of a name, or of the built-in model, where there is no such file."""
    if not os.path.lexists(name):
        if str(name) in builtin_names():
            return _read_builtin(str(name))
        if copy := _copy_of(str(name)):
            return read_checkpoint(copy, key)
        if "\0" not in str(name):
            raise CheckpointError(f"{name}: no such file, and {no_builtin(str(name))}")
    return read_checkpoint(name, key)


def official_copy(name: str | None) -> Path | None:
    """The copy in the cache of an official model; None for built-in and unknown names.

    Raises:
        CheckpointError: the copy is not what the catalogue says.
        UsageError: it is not there, or several models have the name; the message says what to do.
    """
    if not name or name in builtin_names():
        return None
    from restore.catalogue.getting import cached  # most models are files

    return cached(name)


def _copy_of(name: str) -> Path | None:
    try:
        return official_copy(name)
    except UsageError as error:
        raise CheckpointError(f"{name}: no such file; {error}") from error


def builtin_names() -> list[str]:
    """Names of the models that come with the package."""
    folder = resources.files("restore").joinpath("weights")
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(n.removesuffix(".safetensors") for n in names if n.endswith(".safetensors"))


def no_builtin(name: str) -> str:
    """That no built-in model has a name, which there are, and which of them is near, in words."""
    names = builtin_names()
    near = difflib.get_close_matches(name, names, n=1) or _near_official(name)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"no built-in model is called {name!r}; {hint}there is "
        f"{', '.join(names) or 'none in this installation'}"
    )


def _near_official(name: str) -> list[str]:
    """The official model whose name is nearest, if one is near."""
    from restore.catalogue.entries import nearest  # only mistakes ask

    return nearest(name, most=1)


def _read_builtin(name: str) -> Checkpoint:
    with resources.as_file(resources.files("restore") / "weights" / f"{name}.safetensors") as path:
        return read_checkpoint(path)


def load_builtin(
    name_or_scale: str | float,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> Model:
    """Load a model that comes with the package.

    Args:
        name_or_scale: one of `builtin_names()`, or the wanted enlargement: the smallest scale
            that reaches it, else the largest there is.

    Raises:
        UsageError: no such name; the message lists them.
    """
    if isinstance(name_or_scale, str):
        if name_or_scale not in builtin_names():
            raise UsageError(f"{no_builtin(name_or_scale)}; for a weight file use --model_path")
        name = name_or_scale
    else:
        by_scale = {int(n.rsplit("_x", 1)[1]): n for n in builtin_names()}
        if not by_scale:
            raise UsageError("this installation holds no built-in model; name one by --model_path")
        reaching = [scale for scale in by_scale if scale >= name_or_scale]
        name = by_scale[min(reaching) if reaching else max(by_scale)]
    on, arithmetic = resolve_device(device), resolve_dtype(dtype)
    return _build(_read_builtin(name), name, on, arithmetic, None, {}, None)


def _build(
    checkpoint: Checkpoint,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    arch: str | None,
    config: Mapping[str, Any],
    scale: int | None,
) -> Model:
    given = {**checkpoint.config, **config}
    spec, reading, net = recognise(checkpoint, candidates(arch), config)
    settings, assumed = reading.config, False
    evidence = (*reading.evidence, *malformed_buffers(spec, settings, checkpoint.state))
    if "img_size" not in given:
        settings, more, assumed = with_likely_patch(spec, settings, checkpoint.state)
        evidence = (*evidence, *more)
    if scale is not None:
        settings = for_scale(spec, settings, scale, checkpoint.source)
    for doubt in reading.doubts:
        if not set(doubt.fields) & given.keys():
            _warn(
                f"{checkpoint.source}: {doubt.text} (in config=, or by --config)",
                AmbiguousCheckpointWarning,
            )
    if dtype == torch.float16 and spec.overflows_fp16:
        dtype = torch.bfloat16
        _warn(
            f"{checkpoint.source}: values inside {spec.family} networks pass the largest that fp16 "
            "holds: bf16 is used, which has the range of fp32",
            PrecisionWarning,
        )
    held = torch.float64 if dtype == torch.float64 else torch.float32
    state = _values(checkpoint, derived_keys(net), device, held)
    new: tuple[str, ...] = ()
    if (own_scale := spec.scale(reading.config)) != spec.scale(settings):
        with torch.device("cpu"):
            net = spec.build(settings).to(device=device, dtype=held)
        old = state
        state, new, left_out = transplanted(net, old)
        evidence = (*evidence, f"scale={scale} was asked for: its own is {own_scale}")
        _warn(
            f"{checkpoint.source}: weights for x{own_scale} in a network for x{scale}, to be "
            f"trained before use; new: {in_words(new, state)}; left out: {in_words(left_out, old)}",
            PartlyLoadedWarning,
        )
    net.load_state_dict(state, assign=True)
    net.requires_grad_(True)
    return Model(
        spec,
        settings,
        net.eval(),
        name=name,
        dtype=dtype,
        evidence=evidence,
        checkpoint_key=checkpoint.key,
        other_keys=checkpoint.others,
        new_keys=new,
        patch_is_assumed=assumed,
    )


def _warn(text: str, category: type[UserWarning]) -> None:
    """Warn at the line that called `load`."""
    warnings.warn(text, category, stacklevel=4)


def _values(
    checkpoint: Checkpoint, derived: set[str], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Copies of the parameters; CheckpointError where one holds no numbers to compute with."""
    for key, value in checkpoint.state.items():
        plain = value.layout == torch.strided and not value.is_meta
        if key not in derived and not (plain and value.is_floating_point()):
            raise CheckpointError(
                f"{checkpoint.source}: {key} holds {value.dtype}, {value.layout}, on "
                f"{value.device}; expected floating point values, dense and not quantised"
            )
    state = {
        key: value.detach().to(device=device, dtype=dtype, copy=True)
        for key, value in checkpoint.state.items()
        if key not in derived
    }
    for key, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{checkpoint.source}: {key} holds NaN or infinite values; the file is damaged or "
                "its training diverged"
            )
    return state
