"""The authors' form of every network, and the work that is counted from it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import traffic
from benchmarks.eager import Eager
from benchmarks.gpu.cases import NETWORKS, PRECISIONS, Case
from benchmarks.gpu.floors import work_of
from benchmarks.gpu.subjects import Subject, subject
from restore.costs import natural_side, parameters_and_multiply_adds
from restore.kernels import dispatch

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_eager_form_is_the_same_function(name: str) -> None:
    network = NETWORKS[name]
    net = subject(network, rehearsal=True).copied(CPU, torch.float64)
    x = torch.rand(2, 3, network.tiny_side, network.tiny_side, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = net(x), Eager(net)(x)
    assert (ours - theirs).abs().max() <= 1e-12 * ours.abs().max()


@pytest.mark.parametrize("keep_masks", [True, False], ids=["kept masks", "masks made anew"])
@pytest.mark.parametrize("name", ["SwinIR-S", "SRFormer", "ATD"])
def test_the_eager_form_pads_as_ours_does(name: str, keep_masks: bool) -> None:
    net = subject(NETWORKS[name], rehearsal=True).copied(CPU, torch.float64)
    x = torch.rand(1, 3, 10, 15, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(net(x), Eager(net, keep_masks)(x), rtol=0, atol=1e-12)


def test_another_network_has_no_eager_form() -> None:
    with pytest.raises(LookupError, match="no eager form of Linear"):
        Eager(nn.Linear(1, 1))


def tiny(name: str) -> Subject:
    """A network for counting alone."""
    return Subject(*NETWORKS[name].build_settings(rehearsal=True), nn.Identity())


@pytest.mark.parametrize("name", ["SwinIR-S", "HAT", "DRCT", "SRFormer", "Uformer-B", "ATD"])
def test_the_recorded_work_is_the_counted_cost(name: str) -> None:
    """Two independent counts agree: that of the authors' form and that of ours."""
    found = tiny(name)
    side = natural_side(found.spec, found.config)
    work = work_of(found, Case(NETWORKS[name], "inference", side, 1, PRECISIONS["bf16"]))
    _, multiply_adds = parameters_and_multiply_adds(found.spec, found.config)
    assert work.operations == 2 * multiply_adds * side**2


def test_every_block_reads_and_writes_its_map_once() -> None:
    work = work_of(tiny("SwinIR-M"), Case.named("SwinIR-M/inference/16x16x3/bf16"))
    assert work.map_bytes == 2 * 2 * 12 * 2 * 3 * 16**2  # blocks, passes, channels, bytes, pixels


def test_training_works_thrice_as_much() -> None:
    """Backward has the products of forward twice, but for the gradient of the image."""
    forward, step = (
        work_of(tiny("SwinIR-S"), Case.named(f"SwinIR-S/{kind}/16x16x2/bf16"))
        for kind in ("inference", "training")
    )
    first_convolution = 2 * 2 * 16**2 * 3 * 12 * 9
    assert step.operations == 3 * forward.operations - first_convolution


@pytest.mark.skipif(not dispatch.HAS_TRITON, reason="needs the package triton")
def test_the_figure_is_what_is_counted() -> None:
    """Or `python -m benchmarks.traffic` has to draw it again."""
    columns = traffic.of_block("SwinIR-M", traffic.SIDE, torch.bfloat16)
    drawn = traffic.picture("SwinIR-M", traffic.SIDE, columns)
    assert drawn == traffic.PICTURE.read_text(encoding="utf-8")
    before, after = (sum(moved for _, moved in operations) for operations in columns.values())
    assert before > 10 * after
