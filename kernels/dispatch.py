"""Choosing which implementation of an op runs. The only place that decides."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor
from torch._C._functorch import TransformType, maybe_current_level, peek_interpreter_stack
from torch.autograd import forward_ad

Path = Literal["triton", "native", "torch", "reference"]
Backend = Literal["auto", "triton", "native", "torch", "reference"]

HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # as Triton itself reads it
# What "auto" may take, the fastest first. Interpreted kernels are thousands of times slower: they
# run where they are named, for tests.
AUTO: tuple[Path, ...] = ("native", "torch") if INTERPRETED else ("triton", "native", "torch")


def choose(op: str, asked: Backend, refusals: Mapping[Path, str | None]) -> Path:
    """Name the implementation for one call of `op`.

    Args:
        op: name of the op, for messages.
        asked: what the caller asked for. "auto" takes the fastest path that can run this call.
        refusals: for every path that the op has beside its definition, why it cannot run this
            call, or None if it can.

    Raises:
        BackendUnavailable: the named path cannot run this call. A named path never falls back,
            so that a benchmark or a test cannot time or test the wrong code.
        ValueError: `asked` is no path.
    """
    if asked not in get_args(Backend):
        raise ValueError(f"{op}: backend is {asked!r}; expected one of {get_args(Backend)}")
    if asked == "auto":
        for path in AUTO:
            if path in refusals and refusals[path] is None:
                return path
        return "reference"
    if asked != "reference":
        why = refusals.get(asked, f"the op has none; it has {', '.join([*refusals, 'reference'])}")
        if why:
            raise BackendUnavailable(f"{op}: backend={asked!r} cannot run here: {why}")
    return asked


def torch_refuses(x: Tensor) -> str | None:
    """Why no path of stock fused ops can run this input, or None if one may."""
    if x.dtype == torch.float64:
        return "float64 runs the definition itself"
    if takes_forward_derivatives():
        return "forward-mode derivatives are taken; PyTorch's fused product has none on a CPU"
    if not torch.compiler.is_compiling() and torch.is_grad_enabled() and _is_batched():
        return "vmap runs; PyTorch's fused product has no gradients of biases in a batch"
    return None


def is_transformed() -> bool:
    """Whether a transform of `torch.func` runs, such as vmap, where not all operators work."""
    return maybe_current_level() is not None


def _is_batched() -> bool:
    """Whether `torch.func.vmap` is the innermost transform."""
    innermost = peek_interpreter_stack()
    return innermost is not None and innermost.key() == TransformType.Vmap


def takes_forward_derivatives() -> bool:
    """Whether a level of forward-mode differentiation is open, as in `torch.func.jvp`."""
    return forward_ad._current_level >= 0


def triton_refuses(x: Tensor) -> str | None:
    """Why no Triton kernel can run this input, or None if one may."""
    if not HAS_TRITON:
        return "the package triton is not installed"
    if not (x.is_cuda or INTERPRETED):
        return f"Triton is for NVIDIA GPUs and this is on {x.device.type}"
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"it computes float16, bfloat16 and float32, and this is {x.dtype}"
    if x.is_cuda:
        if torch.version.hip:
            return "the kernels are made for NVIDIA GPUs and this is a ROCm build"
        capability = torch.cuda.get_device_capability(x.device)
        if capability < (8, 0):
            return f"it needs compute capability 8.0 and this GPU has {capability}"
    return open_sizes(x)


def open_sizes(x: Tensor) -> str | None:
    """Why a path that is chosen or cut by sizes cannot run, or None if it can.

    `torch.export` traces a network for all sizes at once, with symbols in the place of numbers.
    """
    if any(isinstance(side, torch.SymInt) for side in x.shape):
        return "sizes are left open, as in an export; the definition alone is the same for all"
    return None


class BackendUnavailable(RuntimeError):
    """The path that the caller named cannot run this call."""
