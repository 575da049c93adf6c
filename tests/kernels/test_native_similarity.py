"""The native kernel of SSIM against its definition in NumPy, for every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from restore.kernels import native_library, native_similarity
from restore.metrics import similarity, ssim
from restore.metrics.pairs import pair_of


@pytest.fixture(params=range(len(native_library.ISAS)), ids=native_library.ISAS, autouse=True)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        library = native_library.library(request.param)
    except LookupError as why:
        pytest.skip(str(why))
    monkeypatch.setattr(native_similarity, "library", lambda: library)


# one place; rows and columns that no vector divides; more rows than a strip
@pytest.mark.parametrize("shape", [(11, 11), (12, 11), (11, 29), (33, 47), (90, 26, 3)], ids=str)
@pytest.mark.parametrize("y_channel", [False, True], ids=["as it is", "y"])
def test_equals_the_definition(shape: tuple[int, ...], y_channel: bool) -> None:
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 256, shape).astype(np.uint8) for _ in range(2))
    b = (a // 2 + b // 2).astype(np.uint8)
    pair = pair_of("ssim", a, b, 0, y_channel, None, "rgb")
    got, expected = similarity._native_sums(pair), similarity._sums(pair)
    places = np.prod([side - 10 for side in shape[:2]]) * (1 if y_channel else pair.shape[1])
    # squares up to 510^2 with 53 bits, on variances of at least C2 = 117
    np.testing.assert_allclose(got / places, expected / places, rtol=0, atol=1e-11)
    assert ssim(a, b, y_channel=y_channel) == ssim(b, a, y_channel=y_channel)
    assert ssim(a, a, y_channel=y_channel) == 1
