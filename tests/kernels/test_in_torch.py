"""Networks by Triton's kernels inside what PyTorch does to networks.

Compiled, exported, with activations computed again and in parallel training they give what they
give alone: the same kernels, and so the same numbers.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import interpreted
import pytest
import torch
from exactness import assert_as_exact_as
from golden_data import small_cases
from interpreted import DEVICE
from torch import Tensor, nn
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from restore.archs import ARCHS
from restore.kernels import dispatch

pytestmark = [interpreted.MARKS[0], pytest.mark.usefixtures("quick_interpreter", "by_triton")]

SHALLOW: dict[str, dict[str, Any]] = {  # and two blocks deep
    "SwinIR": {"window_size": 4, "embed_dim": 12, "upsampler": "", "upscale": 1},
    "HAT": {"window_size": 4, "embed_dim": 12, "squeeze_factor": 3},
    "SRFormer": {"window_size": 4, "embed_dim": 12},
    "DRCT": {"window_size": 4, "embed_dim": 12, "gc": 4, "num_heads": [2]},
    "ATD": {"window_size": 4, "embed_dim": 12, "category_size": 16, "num_tokens": 8},
    "CAT": {
        "block_name": "CATB_axial",
        "depth": [2],
        "split_size_0": [2],
        "split_size_1": [0],
        "num_heads": [2],
    },
    "HiT_SRF": {"embed_dim": 48, "base_win_size": [4, 4], "hier_win_ratios": [1, 2]},
    "Uformer": {"img_size": 32, "win_size": 8, "depths": [1] * 9, "num_heads": [1] * 9},
}
SIDE = {"Uformer": 32}  # pixels; else that of two windows
QUICK = ("SwinIR", "HAT")

every_network = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in SHALLOW],
)


@pytest.fixture
def by_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every op takes its Triton path, those of float32 too, where it has one."""
    monkeypatch.setattr(dispatch, "AUTO", ("triton",))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def network(name: str, **changes: Any) -> nn.Module:
    """A small network, the same in every call."""
    spec = next(spec for spec in ARCHS if spec.name == name)
    small: dict[str, Any] = {**small_cases(name)[0].config, "depths": [2], "num_heads": [2]}
    wanted = {**small, **SHALLOW[name], "drop_path_rate": 0.0, **changes}
    known = spec.config()
    config = known.replaced({key: wanted[key] for key in wanted if key in known}, "test")
    torch.manual_seed(0)
    return spec.build(config).to(DEVICE)


def picture(name: str, net: nn.Module) -> Tensor:
    side = SIDE.get(name, 8)
    generator = torch.Generator().manual_seed(0)
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    return torch.rand(1, first.in_channels, side, side, generator=generator).to(DEVICE)


def trained(net: nn.Module, x: Tensor, run: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """What a step finds: the output, and the gradients by parameter."""
    net.zero_grad(set_to_none=True)
    y = run(x)
    (y * torch.linspace(-1, 1, y.numel(), device=y.device).view(y.shape)).sum().backward()
    found = {key: p.grad for key, p in net.named_parameters() if p.grad is not None}
    assert len(found) == len(list(net.parameters()))
    return {"output": y.detach(), **{key: grad.clone() for key, grad in found.items()}}


@functools.cache
def alone(name: str) -> dict[str, Tensor]:
    """What a step of the network by itself finds."""
    net = network(name)
    return trained(net, picture(name, net), net)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [key for key, x in expected.items() if not torch.equal(found[key], x)]
    assert different == []


@pytest.mark.slow
@every_network
def test_a_compiled_network_learns_the_same(name: str) -> None:
    net = network(name)
    x = picture(name, net)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    # compiled, the sums of stock operators may be taken in another order
    torch.testing.assert_close(trained(net, x, compiled), alone(name))


@every_network
def test_an_exported_network_computes_the_same(name: str) -> None:
    net = network(name).eval()
    x = picture(name, net)
    with torch.no_grad():
        y = net(x)
        exported = torch.export.export(net, (x,))
        called = {str(node.target) for node in exported.graph.nodes}
        assert any(target.startswith("restore.") for target in called)
        assert torch.equal(exported.module()(x), y)


@every_network
def test_activations_computed_again_change_nothing(name: str) -> None:
    net = network(name)
    x = picture(name, net)
    assert_same(trained(net, x, lambda x: checkpoint(net, x, use_reentrant=False)), alone(name))


@pytest.fixture(scope="module")
def kept() -> list[nn.Module]:
    """What lives until all tests are done: its end may wait for ever for a thread just at work."""
    return []


@pytest.mark.filterwarnings("ignore:Grad strides do not match")  # of a stock convolution
@every_network
def test_parallel_training_learns_the_same(name: str, kept: list[nn.Module]) -> None:
    net = network(name)
    x = picture(name, net)
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(net, bucket_cap_mb=0.01)  # several of them
        kept.append(parallel)
        assert_same(trained(net, x, parallel), alone(name))
    finally:
        destroy_process_group()


@every_network
def test_a_network_is_as_exact_as_by_stock_ops(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(name)
    x = picture(name, net)
    ours = alone(name)
    monkeypatch.setattr(dispatch, "AUTO", ())
    stock = trained(net, x, net)
    wide = copy.deepcopy(net).double()
    truth = trained(wide, x.double(), wide)
    # gradients together: some are 0 but for rounding
    for one, got, true in zip(*map(joined, (stock, ours, truth)), strict=True):
        assert_as_exact_as(one, got, true)


@every_network
def test_autocast_keeps_what_stock_ops_keep(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(name)
    x = picture(name, net)
    streams: list[torch.dtype] = []  # of what goes from block to block
    for block in net.modules():
        if hasattr(block, "norm2"):
            block.register_forward_hook(lambda _, __, y: streams.append(first_of(y).dtype))

    def run(x: Tensor) -> Tensor:
        with torch.autocast(DEVICE.type, torch.float16):
            y: Tensor = net(x)
            return y.float()

    ours, kept = trained(net, x, run), streams[:]
    monkeypatch.setattr(dispatch, "AUTO", ())
    streams.clear()
    stock = trained(net, x, run)
    assert kept == streams
    assert kept
    assert all(bool(torch.isfinite(gradient).all()) for gradient in ours.values())
    wide = copy.deepcopy(net).double()
    assert_as_exact_as(stock["output"], ours["output"], wide(x.double()))


def first_of(made: Any) -> Tensor:
    """A block's map, of what it gives."""
    y: Tensor = made[0] if isinstance(made, tuple) else made
    return y


def joined(found: dict[str, Tensor]) -> list[Tensor]:
    """The output, and all gradients in one."""
    return [found["output"], torch.cat([x.flatten() for k, x in found.items() if k != "output"])]
