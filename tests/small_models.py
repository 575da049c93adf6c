"""Networks of some thousand parameters, quick enough for a test of what is around them."""

from __future__ import annotations

import torch

from restore.archs.swinir import SPEC, SwinIRConfig
from restore.model import Model


def tiny(scale: int, channels: int = 3, *, seed: int = 0, name: str = "tiny") -> Model:
    """A SwinIR whose output is near its input."""
    config = SwinIRConfig(
        embed_dim=6,
        depths=(1,),
        num_heads=(1,),
        in_chans=channels,
        upscale=scale,
        upsampler="" if scale == 1 else "pixelshuffledirect",
    )
    torch.manual_seed(seed)
    return Model(SPEC, config, SPEC.build(config).eval(), name=name)
