"""The discriminator: official names, shapes, and the arithmetic of its figure."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restore.archs.unet_discriminator import UNetDiscriminatorSN
from restore.errors import UsageError


def test_the_names_are_official() -> None:
    state = UNetDiscriminatorSN(3).state_dict()
    norms = [f"conv{k}.{part}" for k in range(1, 9) for part in ("orig", "u", "v")]
    expected = [name.replace(".", ".weight_") for name in norms]
    plain = ["conv0.weight", "conv0.bias", "conv9.weight", "conv9.bias"]
    assert sorted(state) == sorted([*expected, *plain])
    assert state["conv3.weight_orig"].shape == (512, 256, 4, 4)
    assert state["conv6.weight_orig"].shape == (64, 128, 3, 3)


@pytest.mark.parametrize("skip", [True, False])
def test_it_computes_what_the_figure_shows(skip: bool) -> None:
    torch.manual_seed(0)
    net = UNetDiscriminatorSN(3, 8, skip).double().eval()
    x = torch.rand(2, 3, 16, 24, dtype=torch.float64)

    def weight(number: int) -> Tensor:
        state = net.state_dict()
        w, u, v = (state[f"conv{number}.weight_{part}"] for part in ("orig", "u", "v"))
        return w / (u @ (w.flatten(1) @ v))

    def up(y: Tensor) -> Tensor:
        return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)

    down = [F.leaky_relu(net.conv0(x), 0.2)]
    for number in (1, 2, 3):
        down.append(F.leaky_relu(F.conv2d(down[-1], weight(number), stride=2, padding=1), 0.2))
    y = down[3]
    for number, across in ((4, down[2]), (5, down[1]), (6, down[0])):
        y = F.leaky_relu(F.conv2d(up(y), weight(number), padding=1), 0.2)
        y = y + across if skip else y
    for number in (7, 8):
        y = F.leaky_relu(F.conv2d(y, weight(number), padding=1), 0.2)
    assert torch.allclose(net(x), net.conv9(y), rtol=0, atol=1e-12)


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="16 x 20 pixels; expected multiples of 8"):
        UNetDiscriminatorSN(3, 4)(torch.rand(1, 3, 16, 20))
