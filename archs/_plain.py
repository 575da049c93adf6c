"""Which modules fused operations may read instead of calling them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def watched(module: nn.Module) -> bool:
    """Whether somebody wants to see its calls, or runs something else in them."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in vars(module)
    )


def plain(kind: type[nn.Module], *modules: object) -> bool:
    """Whether calls of all modules do what their tensors say, and nobody would see that there are
    none.

    So whoever reads the tensors need not call the modules. Asked at each use, for hooks and
    adapters come and go.

    Args:
        kind: whose `forward` they have; subclasses that keep it, as parametrised modules do, are
            plain too. Norms have a weight and are of the channels, a GELU is the exact one, and
            convolutions keep the size of a map.
        modules: what may be read; None stands for one that is left out.
    """
    if _has_any_global_hook():
        return False
    forward, needs = kind.forward, NEEDS.get(kind)
    for module in modules:
        if module is None:
            continue
        # the type is asked, as wrappers of modules give the attributes of what is in them
        if getattr(type(module), "forward", None) is not forward:
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


def _keeps_size(conv: nn.Conv2d) -> bool:
    """Whether weight, bias and groups are all that tells it from others."""
    same = tuple(side // 2 for side in conv.kernel_size)
    steps = (*conv.stride, *conv.dilation)
    return conv.padding_mode == "zeros" and conv.padding == same and set(steps) == {1}


NEEDS: dict[type[nn.Module], Callable[[Any], bool]] = {
    nn.LayerNorm: lambda norm: norm.elementwise_affine and len(norm.normalized_shape) == 1,
    nn.InstanceNorm1d: lambda norm: norm.affine and not norm.track_running_stats,
    nn.GELU: lambda gelu: gelu.approximate == "none",
    nn.Conv2d: _keeps_size,
}
