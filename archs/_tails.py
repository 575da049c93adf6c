"""Tails of the Swin super-resolution family: from features to a picture, enlarged or not.

Source: Liang et al., "SwinIR", arXiv:2108.10257, section 3.1. Parameter names are official.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs._spec import StateDict, shape_of
from restore.archs._strips import Added, Layer, doubled, layers_of

Upsampler = Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv", ""]
NUM_FEAT = 64  # channels of the tails; no official constructor has it as an argument
SCALES = {
    "pixelshuffle": (1, 2, 3, 4, 8, 16),
    "pixelshuffledirect": tuple(range(1, 17)),
    "nearest+conv": (2, 4),
    "": (1,),
}


def add_tail(
    net: nn.Module, upsampler: Upsampler, upscale: int, *, in_chans: int, dim: int
) -> None:
    """Give a network the modules of its tail, under their official names.

    Args:
        net: gets them.
        upsampler: the kind of tail.
        upscale: one of its `SCALES`.
        in_chans: channels of pictures.
        dim: channels of features.
    """
    if upsampler == "pixelshuffledirect":
        net.upsample = nn.Sequential(
            nn.Conv2d(dim, in_chans * upscale**2, 3, 1, 1), nn.PixelShuffle(upscale)
        )
        return
    if upsampler == "":
        net.conv_last = nn.Conv2d(dim, in_chans, 3, 1, 1)
        return
    net.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, NUM_FEAT, 3, 1, 1), nn.LeakyReLU(0.01))
    if upsampler == "pixelshuffle":
        net.upsample = _pixel_shuffle_steps(upscale)
    else:
        net.conv_up1 = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1)
        if upscale == 4:
            net.conv_up2 = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1)
        net.conv_hr = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1)
    net.conv_last = nn.Conv2d(NUM_FEAT, in_chans, 3, 1, 1)


def _pixel_shuffle_steps(scale: int) -> nn.Sequential:
    """Convolutions and pixel shuffles: one step of 3 for 3, else steps of 2."""
    step, count = (3, 1) if scale == 3 else (2, scale.bit_length() - 1)
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(NUM_FEAT, NUM_FEAT * step**2, 3, 1, 1), nn.PixelShuffle(step)]
    return nn.Sequential(*layers)


def tail_layers(net: nn.Module, x: Tensor) -> list[Layer]:
    """What features [B, C, H, W] go through in a tail of `add_tail`.

    Args:
        net: has it.
        x: [B, in_chans, H, W], added to the result where the picture keeps its size.
    """
    parts = dict(net.named_children())
    if "upsample" not in parts and "conv_up1" not in parts:
        return [parts["conv_last"], Added(x)]
    if "conv_last" not in parts:
        return [*layers_of(parts["upsample"])]
    before: list[Layer] = [*layers_of(parts["conv_before_upsample"])]
    if "upsample" in parts:
        return [*before, *layers_of(parts["upsample"]), parts["conv_last"]]
    for up in (parts[name] for name in ("conv_up1", "conv_up2") if name in parts):
        before += [doubled, up, _leaky]
    return [*before, parts["conv_hr"], _leaky, parts["conv_last"]]


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def read_tail(state: StateDict, in_chans: int) -> tuple[Upsampler, int]:
    """Kind and scale of a tail, from keys and shapes.

    Raises:
        ValueError: a tensor has another number of sides.
    """
    if "conv_up1.weight" in state:
        return "nearest+conv", 4 if "conv_up2.weight" in state else 2
    if "conv_before_upsample.0.weight" in state:
        keys = [key for key in state if re.fullmatch(r"upsample\.\d+\.weight", key)]
        steps = [shape_of(state, key, "[64 step^2, 64, 3, 3]")[0] for key in keys]
        return "pixelshuffle", math.prod(math.isqrt(max(n // NUM_FEAT, 1)) for n in steps)
    if "upsample.0.weight" in state:
        made = shape_of(state, "upsample.0.weight", "[in_chans upscale^2, embed_dim, 3, 3]")[0]
        return "pixelshuffledirect", math.isqrt(made // in_chans)
    return "", 1
