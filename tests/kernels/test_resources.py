"""What compiled kernels take of a GPU stays within bounds: shared memory, and bytes spilled.

All official calls are compiled by `scripts/kernel_table.py`, whose records are held to the bounds
here; a handful is compiled here, the rest where slow tests run.
"""

from __future__ import annotations

import pytest
import resources
from compiled import SHARED, Report, compiled

from restore.kernels.dispatch import HAS_TRITON

needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="needs the package triton")


def assert_within_bounds(capability: int, key: str, report: Report) -> None:
    assert report.shared <= SHARED[capability], f"sm_{capability} {key}: {report}"
    most = resources.most_spilled(report, resources.dtype_of(key))
    assert report.spilled <= most, f"sm_{capability} {key}: {report}"


def test_records_are_within_bounds() -> None:
    records = list(resources.recorded(resources.read()))
    assert records
    for _, capability, key, report in records:
        assert_within_bounds(capability, key, report)


QUICK = [
    ("attention", 90, ["HAT bfloat16"]),
    ("branch", 90, ["SwinIR-M bfloat16"]),
    ("branch", 80, ["SwinIR-S float16"]),
    ("linear", 80, ["SwinIR-S mlp bfloat16", "SwinIR-S mlp float32 tf32"]),
]


@needs_triton
@pytest.mark.parametrize(("family", "capability", "keys"), QUICK)
def test_kernels_are_within_bounds(family: str, capability: int, keys: list[str]) -> None:
    check(family, keys, capability)


def check(family: str, keys: list[str], capability: int) -> None:
    found = compiled(resources.MODULES[family], keys, capability)
    assert list(found) == keys
    for key, reports in found.items():
        assert reports, key
        for report in reports:
            assert_within_bounds(capability, key, report)


SHAPES = sorted(
    {
        (family, key.partition(f" {dtype}")[0])
        for family in resources.MODULES
        for key in resources.keys_of(family)
        for dtype in resources.DTYPES
        if f" {dtype}" in key
    }
)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize(("family", "shape"), SHAPES, ids=" ".join)
def test_every_kernel_is_within_bounds(family: str, shape: str, capability: int) -> None:
    keys = [key for key in resources.keys_of(family) if key.startswith(f"{shape} ")]
    check(family, keys, capability)
