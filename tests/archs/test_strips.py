"""Chains of layers in strips of rows: the same results, less memory, and only in inference."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.cpu.cases import NETWORKS
from restore.archs import _strips
from restore.archs._skeleton import OuterConfig, SwinSkeleton
from restore.archs._strips import Added, Layer, Near, doubled, run_layers, run_whole
from restore.model import Model

EPS = torch.finfo(torch.float32).eps
TAILS = (
    ("pixelshuffle", 1),
    ("pixelshuffle", 3),
    ("pixelshuffle", 4),
    ("pixelshuffledirect", 2),
    ("pixelshuffledirect", 5),
    ("nearest+conv", 2),
    ("nearest+conv", 4),
    ("", 1),
)
SIZES = ((1, 9), (2, 1), (5, 7), (6, 8), (23, 11))


class Plain(OuterConfig):
    """A network without groups."""

    @property
    def group_depths(self) -> tuple[int, ...]:
        """None."""
        return ()


def network(
    upsampler: str, upscale: int, resi: str = "1conv", dtype: torch.dtype = torch.float64
) -> SwinSkeleton:
    """A skeleton with weights at random and nothing between its ends."""
    torch.manual_seed(0)
    config = Plain(
        embed_dim=12,
        num_heads=(),
        upscale=upscale,
        upsampler=upsampler,  # type: ignore[arg-type]
        resi_connection=resi,  # type: ignore[arg-type]
        img_range=255.0,
    )
    return SwinSkeleton(config, ()).to(dtype).eval()


@pytest.fixture
def strips_of(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Strips of two rows."""
    monkeypatch.setattr(_strips, "STRIP_BYTES", 0)
    monkeypatch.setattr(_strips, "LEAST_ROWS", 2)
    return monkeypatch


def whole(net: SwinSkeleton | Model, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What the network gives in whole maps."""
    with monkeypatch.context() as patch:
        patch.setattr(_strips, "LEAST_ROWS", 10**6)
        return net(x)


@pytest.mark.parametrize(("upsampler", "upscale"), TAILS)
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_every_tail_is_as_in_whole_maps(
    upsampler: str, upscale: int, rows: int, strips_of: pytest.MonkeyPatch
) -> None:
    """In float64 to its rounding, whatever the sizes; two pictures too."""
    strips_of.setattr(_strips, "LEAST_ROWS", rows)
    net = network(upsampler, upscale)
    for size in SIZES:
        x = torch.rand(2, 3, *size, dtype=torch.float64)
        with torch.inference_mode():
            y, expected = net(x), whole(net, x, strips_of)
        assert y.shape == expected.shape
        torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("resi", ["3conv", "1conv"])
def test_float32_is_off_by_no_more_than_rounding(resi: str, strips_of: pytest.MonkeyPatch) -> None:
    """The same sums, at most in another order: off from float64 by no more than twice as much."""
    exact = network("pixelshuffle", 4, resi)
    net = network("pixelshuffle", 4, resi, torch.float32)
    x = torch.rand(1, 3, 19, 13)
    with torch.inference_mode():
        truth = whole(exact, x.double(), strips_of)
        errors = [(y - truth).abs().max().item() for y in (net(x), whole(net, x, strips_of))]
    assert errors[0] <= 2 * errors[1] + 4 * EPS


def test_a_convolution_across_groups_and_one_of_other_sides(strips_of: pytest.MonkeyPatch) -> None:
    """Rows that a strip needs follow from the kernel's height."""
    torch.manual_seed(0)
    conv = functools.partial(nn.Conv2d, dtype=torch.float64)
    near = conv(6, 6, 5, padding=2)
    layers: list[Layer] = [
        conv(6, 6, (5, 3), padding=(2, 1), groups=6),
        nn.GELU(),
        Added(torch.rand(1, 6, 17, 5, dtype=torch.float64)),
        Near(lambda x: x + nn.functional.gelu(near(x)), 2),
        doubled,
        conv(6, 4, 1),
        conv(4, 4, (1, 3), padding=(0, 1)),
        nn.PixelShuffle(2),
        conv(1, 2, (7, 1), padding=(3, 0)),
    ]
    x = torch.rand(1, 6, 17, 5, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(
            run_layers(layers, x), run_whole(layers, x), rtol=1e-14, atol=1e-14
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_as_in_whole_maps(name: str, strips_of: pytest.MonkeyPatch) -> None:
    """With all that its blocks run in strips, two pictures at once."""
    strips_of.setattr(_strips, "LEAST_ROWS", 3)
    spec, config = NETWORKS[name].build_settings(True)
    torch.manual_seed(0)
    model = Model(spec, config, spec.build(config).eval(), name=name, dtype=torch.float64)
    x = torch.rand(2, model.in_channels, 19, 17, dtype=torch.float64)
    with torch.inference_mode():
        y, expected = model(x), whole(model, x, strips_of)
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)


def test_the_picture_stays_channels_last_in_either_way(strips_of: pytest.MonkeyPatch) -> None:
    """What follows is as fast."""
    net = network("pixelshuffle", 2, dtype=torch.float32)
    with torch.inference_mode():
        assert net(torch.rand(2, 3, 9, 7)).is_contiguous(memory_format=torch.channels_last)


def test_strips_only_where_nothing_is_recorded(strips_of: pytest.MonkeyPatch) -> None:
    """With gradients, in a compiled or traced graph, maps are whole."""
    net = network("pixelshuffle", 4, dtype=torch.float32)
    ran: list[int] = []

    def counted(*args: object) -> Tensor:
        ran.append(1)
        return run(*args)  # type: ignore[arg-type]

    run = _strips._run_strips
    strips_of.setattr(_strips, "_run_strips", counted)
    x = torch.rand(1, 3, 9, 7)
    net(x)
    net.train()(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.eval()
    with torch.no_grad():
        with pytest.deprecated_call():
            torch.jit.trace(net, x, check_trace=False)
        torch.export.export(net, (x,), strict=False)
        assert not ran
        net(x)
    assert ran


def test_a_hook_sees_the_whole_map(strips_of: pytest.MonkeyPatch) -> None:
    """Of a convolution of the tail, once, and what it gives in its place is taken."""
    net = network("pixelshuffle", 2, dtype=torch.float32)
    x = torch.rand(1, 3, 9, 7)
    seen: list[torch.Size] = []

    def doubling(module: nn.Module, given: object, y: Tensor) -> Tensor:
        seen.append(y.shape)
        return 2 * y

    handle = net.upsample[0].register_forward_hook(doubling)  # type: ignore[index,union-attr]
    expected = net(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(net(x), expected)
        assert seen == [(1, 256, 9, 7)] * 2
        handle.remove()
        assert not torch.allclose(net(x), expected)


def test_a_hook_sees_the_whole_norm(strips_of: pytest.MonkeyPatch) -> None:
    """That before the tail, as those of convolutions do."""
    net = network("pixelshuffle", 2, dtype=torch.float32)
    x = torch.rand(1, 3, 9, 7)
    seen: list[torch.Size] = []
    net.norm.register_forward_hook(lambda module, given, y: seen.append(y.shape))
    expected = net(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(net(x), expected)
    assert seen == [(1, 9, 7, 12)] * 2


def test_another_norm_computes_as_it_does_elsewhere(strips_of: pytest.MonkeyPatch) -> None:
    """One over whole maps."""
    net = network("pixelshuffle", 2, dtype=torch.float32)
    net.norm = nn.LayerNorm((9, 7, 12))
    x = torch.rand(1, 3, 9, 7)
    expected = net(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(net(x), expected)


class _Wrapped(nn.Module):
    """A convolution inside of another module, as adapters of few parameters have it."""

    def __init__(self, inner: nn.Conv2d) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H, W]."""
        return 2 * self.inner(x)


class _Twice(nn.Conv2d):
    """A convolution with another forward."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H, W]."""
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "put",
    [
        _Wrapped,
        lambda conv: _Twice(64, 256, 3, 1, 1),
        lambda conv: nn.Conv2d(64, 256, 3, 1, 1, padding_mode="reflect"),
        lambda conv: nn.Conv2d(64, 256, 3, 1, 2, dilation=2),
        nn.utils.parametrizations.weight_norm,
    ],
    ids=["wrapped", "of its own", "reflecting", "dilated", "parametrised"],
)
def test_a_module_that_takes_a_place_computes_as_it_does_elsewhere(
    put: Callable[[nn.Module], nn.Module], strips_of: pytest.MonkeyPatch
) -> None:
    """In strips or not."""
    net = network("pixelshuffle", 2, dtype=torch.float32)
    net.upsample[0] = put(net.upsample[0])  # type: ignore[index,operator,union-attr]
    x = torch.rand(1, 3, 9, 7)
    expected = net(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-6)


def test_autocast_gives_the_same_dtype(strips_of: pytest.MonkeyPatch) -> None:
    """And values as near as its rounding."""
    net = network("nearest+conv", 4, dtype=torch.float32)
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        y, expected = net(x), whole(net, x, strips_of)
    assert y.dtype == expected.dtype
    torch.testing.assert_close(y, expected, rtol=0, atol=2.0**-7)


PEAK = """
import json, torch
from benchmarks.memory import peak_above
from benchmarks.cpu.cases import NETWORKS
from restore.archs import _strips
from tests.archs.test_strips import network
torch.set_num_threads(1)
net = network("pixelshuffle", 4, dtype=torch.float32)
peaks = []
for rows in (_strips.LEAST_ROWS, 10**6):
    _strips.LEAST_ROWS = rows
    with torch.inference_mode():
        net(torch.rand(1, 3, 16, 16))
        x = torch.rand(1, 3, 160, 160)
        peaks.append(peak_above(lambda: net(x)))
print(json.dumps(peaks))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forgets no peak")
def test_the_peak_of_memory_is_that_of_strips() -> None:
    """Of the resident set, in a process of its own.

    Whole maps of the enlarged picture are 640 x 640 x 64 x 4 bytes, and there are two at once.
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PEAK],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    )
    assert not done.returncode, done.stderr
    in_strips, in_maps = json.loads(done.stdout)
    enlarged = 640 * 640 * 64 * 4
    assert in_maps > 1.8 * enlarged  # else the measurement is blind
    assert in_strips < 0.5 * enlarged
