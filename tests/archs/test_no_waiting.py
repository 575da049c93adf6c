"""No call of a network waits for its device or copies to it: a CUDA graph can hold it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_data import Tiny, small_cases
from no_waiting import META, Watch
from torch import nn

from restore.archs import ARCHS
from restore.archs._spec import ArchSpec
from restore.kernels import dispatch
from restore.kernels.dispatch import HAS_TRITON, INTERPRETED, Path

CASES = [(spec, case) for spec in ARCHS for case in small_cases(spec.name)]

every_case = pytest.mark.parametrize(("spec", "case"), CASES, ids=[case.name for _, case in CASES])


def watched(spec: ArchSpec, case: Tiny, training: bool) -> Watch:
    """The second of two calls, or steps, of the network in half precision."""
    with META:
        config = spec.config().replaced(case.config, "test")
        net = spec.build(config).train(training).half()
        rule = spec.input_rule(config)
        side = -(-max(rule.minimum, 24) // rule.multiple) * rule.multiple
        x = torch.empty(2, spec.in_channels(config), side, side, dtype=torch.float16)
    for _ in range(2):
        with torch.set_grad_enabled(training), Watch(getattr(net, "mean", None)) as watch:
            y = net(x)
            if training:
                y.sum().backward()
    assert y.shape[0] == 2
    return watch


@pytest.mark.parametrize(
    "path",
    ["triton", *(pytest.param(path, marks=pytest.mark.slow) for path in ("torch", "reference"))],
)
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@every_case
def test_no_call_waits(
    spec: ArchSpec, case: Tiny, training: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == "triton" and not (HAS_TRITON and INTERPRETED):
        pytest.skip("Triton's kernels are on a GPU alone")
    monkeypatch.setattr(dispatch, "AUTO", (path,))
    watch = watched(spec, case, training)
    assert bool(watch.fused) == (path == "triton")
    assert watch.found == []


def test_the_watch_sees_what_waits() -> None:
    x = torch.zeros(3)
    with Watch(None) as watch:
        x.sum().item()
        torch.equal(x, x)
        torch.empty(3, device=META).add(1)
    assert len(watch.found) == 3


class Placed:
    """Stands in for the mean of a network."""

    def __init__(self) -> None:
        self.devices: list[torch.device] = []

    def to(self, device: torch.device) -> Placed:
        self.devices.append(device)
        return self


@pytest.mark.parametrize("spec", ARCHS, ids=lambda spec: spec.name)
def test_the_mean_goes_where_the_weights_go(spec: ArchSpec) -> None:
    net: Any = spec.build(spec.config().replaced(small_cases(spec.name)[0].config, "test"))
    if not hasattr(net, "mean"):
        return
    assert "mean" not in net.state_dict()
    assert net.half().mean.dtype == torch.float32  # no rounding stays when it is widened again
    net.mean = placed = Placed()
    for _ in range(2):
        nn.Sequential(net).double()
    assert placed.devices == [torch.device("cpu")] * 2
    net.to("meta")
    assert len(placed.devices) == 2
