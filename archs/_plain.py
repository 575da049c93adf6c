"""Which modules fused operations may read instead of calling them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn
from torch._C import _disabled_torch_function_impl
from torch.nn.modules.module import _has_any_global_hook


def watched(module: nn.Module) -> bool:
    """Whether somebody wants to see its calls, or runs something else in them."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or not _is_own(module.forward, type(module).forward, module)
    )


def _is_own(method: Callable[..., object], function: object, module: nn.Module) -> bool:
    """Whether a call of it runs a function of the class on the module.

    Asked so, as a compiled network would not notice a new entry of `__dict__`.
    """
    return (
        getattr(method, "__func__", None) is function
        and getattr(method, "__self__", None) is module
    )


def plain(kind: type[nn.Module], *modules: object) -> bool:
    """Whether calls of all modules do what their tensors say, and nobody would see that there are
    none.

    So whoever reads the tensors need not call the modules. Asked at each use, for hooks and
    adapters come and go.

    Args:
        kind: how they are called; subclasses that change nothing of that, as parametrised modules
            do, are plain too. A `forward` put in place of PyTorch's own in its class is seen.
            Norms have a weight and are of the channels, a GELU is the exact one, linear layers have
            ordinary tensors, and convolutions keep the size of a map.
        modules: what may be read; None stands for one that is left out.
    """
    if _has_any_global_hook():
        return False
    forward, needs = FORWARDS.get(kind, kind.forward), NEEDS.get(kind)
    call = nn.Module.__call__  # which tracers replace for all
    for module in modules:
        if module is None:
            continue
        # the type is asked, as wrappers of modules give the attributes of what is in them
        its = type(module)
        if getattr(its, "forward", None) is not forward or its.__call__ is not call:
            return False
        if watched(module) or (needs is not None and not needs(module)):  # type: ignore[arg-type]
            return False
    return True


def plain_sequence(sequence: object, *kinds: type[nn.Module]) -> bool:
    """Whether it is a plain `nn.Sequential` of plain modules of these kinds, in this order."""
    return (
        isinstance(sequence, nn.Sequential)
        and plain(nn.Sequential, sequence)
        and len(sequence) == len(kinds)
        and all(plain(kind, module) for kind, module in zip(kinds, sequence, strict=True))
    )


def _is_ordinary(weight: Tensor) -> bool:
    """Whether it is multiplied as any tensor, not as its class says (quantised weights)."""
    its = type(weight)
    if its is nn.Parameter or its is Tensor:
        return True
    own = its.__torch_function__
    return getattr(own, "__func__", own) in (TORCH_FUNCTION, _disabled_torch_function_impl)


def _keeps_size(conv: nn.Conv2d) -> bool:
    """Whether weight, bias and groups are all that tells it from others."""
    if not _is_own(conv._conv_forward, CONV_FORWARD, conv):
        return False
    same = tuple(side // 2 for side in conv.kernel_size)
    steps = (*conv.stride, *conv.dilation)
    return conv.padding_mode == "zeros" and conv.padding == same and set(steps) == {1}


TORCH_FUNCTION = cast(Any, Tensor.__torch_function__).__func__  # of a class method
CONV_FORWARD = nn.Conv2d._conv_forward

NEEDS: dict[type[nn.Module], Callable[[Any], bool]] = {
    nn.LayerNorm: lambda norm: norm.elementwise_affine and len(norm.normalized_shape) == 1,
    nn.InstanceNorm1d: lambda norm: norm.affine and not norm.track_running_stats,
    nn.Linear: lambda linear: _is_ordinary(linear.weight),
    nn.GELU: lambda gelu: gelu.approximate == "none",
    nn.Conv2d: _keeps_size,
}

STOCK: tuple[type[nn.Module], ...] = (
    *NEEDS,
    nn.ReLU,
    nn.LeakyReLU,
    nn.PixelShuffle,
    nn.Dropout,
    nn.Sequential,
)
FORWARDS: dict[type[nn.Module], Any] = {kind: kind.forward for kind in STOCK}  # when imported
