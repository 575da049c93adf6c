"""What every network does first with the picture that it is given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restore.archs._plain import plain
from restore.kernels.dispatch import is_transformed
from restore.kernels.precision import check_dtypes
from restore.kernels.windows import check_pixels


def check_picture(net: nn.Module, x: Tensor, first: nn.Module) -> None:
    """Refuse what `net` cannot restore, where no graph is made of it.

    Args:
        net: the network, named in messages.
        x: what it was given; [B, C, H, W] is expected. There may be no images.
        first: what x goes through first. Its dtype is asked for if it is a plain convolution, of
            which nothing converts what comes in.

    Raises:
        ValueError: x has another number of sides, no pixels, or another dtype than the weights.
    """
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return  # a graph holds no such questions
    name = type(net).__name__
    if x.dim() != 4:
        raise ValueError(f"{name}: x is {tuple(x.shape)}; expected [B, C, H, W]")
    _, _, h, w = x.shape
    check_pixels(name, (h, w))
    while isinstance(first, nn.Sequential) and plain(nn.Sequential, first):
        first = first[0]
    if isinstance(first, nn.Conv2d) and plain(nn.Conv2d, first):
        check_dtypes(name, x, first.weight)


def channels_last(x: Tensor) -> Tensor:
    """A picture whose channels are adjacent, so that maps [B, H, W, C] of it are never copied."""
    if not torch.compiler.is_compiling() and is_transformed():
        return x  # inside of vmap there is no such order
    return x.contiguous(memory_format=torch.channels_last)
