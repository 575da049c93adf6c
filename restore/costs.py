"""What a network costs, found without computing anything: on tensors that have only shapes."""

from __future__ import annotations

import math

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from restore.archs._spec import ArchConfig, ArchSpec

LEAST_SIDE = 64  # of the image that multiply-adds are counted on


def natural_side(spec: ArchSpec, config: ArchConfig) -> int:
    """The least side from 64 on that neither the network nor its windows have to pad."""
    rule = spec.input_rule(config)
    unit = math.lcm(rule.multiple, rule.align)
    return -(-max(LEAST_SIDE, rule.minimum) // unit) * unit


def parameters_and_multiply_adds(
    spec: ArchSpec, config: ArchConfig, side: int | None = None
) -> tuple[int, float]:
    """Parameters, and multiply-adds for one pixel of a square input, of `natural_side` if None.

    Counted are convolutions, linear layers and attention products, as the network here computes
    them; a multiply-add is half of what torch.utils.flop_counter calls an operation.
    """
    side = natural_side(spec, config) if side is None else side
    with torch.device("meta"):
        net = spec.build(config).eval().requires_grad_(False)
        x = torch.zeros(1, spec.in_channels(config), side, side)
        # the plain products: the fused ones are not all known to the counter
        plain = sdpa_kernel(SDPBackend.MATH)
        with FlopCounterMode(display=False) as counter, plain, torch.no_grad():
            net(x)
    parameters = sum(p.numel() for p in net.parameters())
    return parameters, counter.get_total_flops() / 2 / side**2
