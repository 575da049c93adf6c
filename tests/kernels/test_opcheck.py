"""Every operator with a Triton path is what PyTorch's compilers, exports and autograd take it for.

And what stands between its kernels neither waits for the GPU nor makes anything on the CPU.
"""

from __future__ import annotations

from typing import Any

import interpreted
import pytest
import torch
from no_waiting import META, Watch
from op_samples import SAMPLES, operators
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils._pytree import tree_map

pytestmark = interpreted.MARKS

every_sample = pytest.mark.parametrize("name", SAMPLES)


def trained(x: Any) -> Any:
    return x.requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x


def on_meta(x: Any) -> Any:
    return x.to(META) if isinstance(x, Tensor) else x


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are prepared and never run."""
    monkeypatch.setattr("triton.runtime.interpreter.GridExecutor.__call__", lambda *_, **__: None)


@pytest.mark.slow
@every_sample
def test_opcheck(name: str) -> None:
    without, with_gradients, backward = operators(name)
    for found in (without, backward):
        torch.library.opcheck(found.op, found.arguments)
    torch.library.opcheck(with_gradients.op, tree_map(trained, with_gradients.arguments))


@pytest.mark.skipif(interpreted.ON_GPU, reason="needs Triton's interpreter")
@pytest.mark.usefixtures("no_kernels")
@every_sample
def test_no_launch_waits(name: str) -> None:
    for found in operators(name):
        run = OPDEFS[found.op.name()]._init_fn
        arguments = tree_map(on_meta, found.arguments)
        with Watch(None) as watch:
            run(*arguments)
        assert watch.found == []


@pytest.mark.skipif(interpreted.ON_GPU, reason="needs Triton's interpreter")
@pytest.mark.usefixtures("no_kernels")
def test_there_is_a_sample_of_every_operator() -> None:
    checked = {found.op.name() for name in SAMPLES for found in operators(name)}
    registered = torch._C._dispatch_get_all_op_names()
    assert checked == {name for name in registered if name.startswith("restore::")}
