"""The Swin block against its formula, and which code computes it."""

from __future__ import annotations

from typing import Any

import branch_cases
import pytest
import torch
from block_cases import SMALL, Case, weights
from exactness import gradients
from torch import Tensor

from restore.kernels import native_library, window_block
from restore.kernels.dispatch import BackendUnavailable

CASES = [
    SMALL,
    Case(branch_cases.Case((8, 4), (4, 4), (2, 2), 1, 3), 5, norm_bias=False),
    Case(
        branch_cases.Case(
            (7, 7), (7, 7), (0, 0), 1, 5, without=("norm_bias", "vectors", "qkv_bias"), scale=0.3
        ),
        8,
        bias=False,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_definition_is_the_formula(case: Case) -> None:
    tensors = list(case.draw().values())
    wanted = gradients(case.formula, tensors)
    for a, b in zip(gradients(case.run("reference"), tensors), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_what_has_no_native_path_is_two_ops() -> None:
    tensors = list(SMALL.draw().values())
    torch.testing.assert_close(SMALL.run()(*tensors), SMALL.run("reference")(*tensors))
    with pytest.raises(BackendUnavailable, match=r"window_block: .*float64"):
        SMALL.run("native")(*tensors)
    with pytest.raises(ValueError, match="backend is 'fast'"):
        SMALL.run("fast")(*tensors)  # type: ignore[arg-type]


@pytest.mark.skipif(native_library.loaded()[0] is None, reason="needs the native kernels")
def test_it_is_one_call_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    run = native_library.Library.run

    def noted(self: native_library.Library, name: str, call: Any) -> None:
        calls.append(name)
        run(self, name, call)

    monkeypatch.setattr(native_library.Library, "run", noted)
    SMALL.run()(*SMALL.draw(torch.float32).values())
    assert calls == ["restore_branch"]


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", ["branch norm_weight", "norm_weight"])
def test_a_norm_is_needed(name: str, backend: Any) -> None:
    given = SMALL.draw(torch.float32)
    without = {key: t for key, t in given.items() if key != name}
    with pytest.raises(ValueError, match="a norm is missing"):
        window_block.window_block(
            given["x"],
            *weights(without),
            SMALL.branch.window,
            num_heads=SMALL.branch.heads,
            backend=backend,
        )


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("x", (2, 4, 6, 10)),
        ("branch qkv_weight", (30, 9)),
        ("branch proj_bias", (9,)),
        ("branch bias_table", (49, 3)),
        ("norm_bias", (9,)),
        ("fc1_weight", (7, 9)),
        ("fc2_weight", (9, 7)),
        ("fc2_bias", (9,)),
    ],
)
def test_shapes_that_do_not_fit(name: str, shape: tuple[int, ...]) -> None:
    given = SMALL.draw(torch.float32)
    given[name] = torch.zeros(shape)
    messages = set()
    for backend in ("auto", "reference"):
        with pytest.raises(ValueError, match=r"\(") as caught:
            SMALL.run(backend)(*given.values())  # type: ignore[arg-type]
        messages.add(str(caught.value).split(": ", 1)[1])
    assert len(messages) == 1


@pytest.mark.skipif(native_library.loaded()[0] is None, reason="needs the native kernels")
def test_changed_weights_are_seen() -> None:
    given = SMALL.draw(torch.float32)
    tensors: list[Tensor] = list(given.values())
    for tensor in tensors[1:]:
        before = SMALL.run("native")(*tensors)
        tensor.mul_(1.5)
        assert not torch.equal(SMALL.run("native")(*tensors), before)
    fresh = [tensor.clone() for tensor in tensors]
    assert torch.equal(SMALL.run("native")(*tensors), SMALL.run("native")(*fresh))
