"""Feed-forward parts of blocks against the stock layers that they stand for, to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs._blocks import on_map
from restore.archs._branches import Branch, DropPath, Mlp, add_branch
from restore.archs._conv_mlp import ConvMlp, LeFF

DIM, HIDDEN, DROP = 6, 10, 0.4


def mlp(net: Mlp, x: Tensor) -> Tensor:
    y: Tensor = net.drop(net.fc2(net.drop(F.gelu(net.fc1(x)))))
    return y


def conv_mlp(net: ConvMlp, x: Tensor) -> Tensor:
    hidden = F.gelu(net.fc1(x))
    y: Tensor = net.drop(net.fc2(net.drop(hidden + on_map(net.dwconv.depthwise_conv, hidden))))
    return y


def leff(net: LeFF, x: Tensor) -> Tensor:
    y: Tensor = net.linear2(on_map(net.dwconv, net.linear1(x)))
    return y


KINDS = {
    "Mlp": (lambda drop: Mlp(DIM, HIDDEN, drop), mlp),
    "ConvMlp": (lambda drop: ConvMlp(DIM, HIDDEN, drop), conv_mlp),
    "LeFF": (lambda drop: LeFF(DIM, HIDDEN), leff),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize("drop", [0.0, DROP])
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_their_layers(kind: str, drop: float, rate: float, training: bool) -> None:
    make, layers = KINDS[kind]
    net, norm, drop_path = make(drop), nn.LayerNorm(DIM), DropPath(rate)
    together = nn.ModuleList([net, norm, drop_path]).train(training)
    x = torch.randn(3, 4, 5, DIM, generator=torch.Generator().manual_seed(0))

    def seeded(function: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(1)
        y = function()
        return y.detach(), list(torch.autograd.grad(y.square().sum(), together.parameters()))

    for ours, plain in (
        (
            lambda: add_branch(x, norm, net, drop_path),
            lambda: x + drop_path(layers(net, norm(x))),
        ),
        (lambda: add_branch(x, norm, net), lambda: x + layers(net, norm(x))),
        (lambda: net.run(x, norm), lambda: layers(net, norm(x))),
    ):
        (y, grads), (wanted, others) = seeded(ours), seeded(plain)
        assert torch.equal(y, wanted)
        assert all(torch.equal(a, b) for a, b in zip(grads, others, strict=True))
    net.eval()
    assert isinstance(net, Branch)
    assert torch.equal(net(x), layers(net, x))
