"""Training steps of ours and of BasicSR, with the same network, weights, batch, loss and optimizer.

    python -m benchmarks.training      # writes benchmarks/results/training.json

The network is SwinIR-S x2 (BasicSR's own in BasicSR), a step is what its SRModel does with a batch:
forward, L1 loss, backward, Adam, average of the weights. Numbers are seconds of the processor for a
step on one thread, medians over rounds that go through all contenders in turn: they depend little
on what else a machine does. BasicSR trains in float32 alone; that its step runs inside
`torch.autocast` is this program's doing. Without BasicSR (pip install basicsr) ours are measured
alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.machine import describe
from restore.datasets.loader import TrainingBatch
from restore.torchvision_remedies import declare_torchvision_operators, supply_functional_tensor
from restore.training.distributed import Processes
from restore.training.model import Training
from restore.training.options import ModelKind, NetworkOptions, Options
from restore.training.train_options import (
    LossOptions,
    OptimOptions,
    SchedulerOptions,
    TrainOptions,
)

RESULTS = Path(__file__).parent / "results" / "training.json"
SCALE, RATE, DECAY = 2, 2e-4, 0.999
NETWORK: dict[str, Any] = {
    "upscale": SCALE,
    "in_chans": 3,
    "img_size": 64,
    "window_size": 8,
    "img_range": 1.0,
    "depths": [6, 6, 6, 6],
    "embed_dim": 60,
    "num_heads": [6, 6, 6, 6],
    "mlp_ratio": 2,
    "upsampler": "pixelshuffledirect",
    "resi_connection": "1conv",
}
THEIRS = "BasicSR"
Step = Callable[[int], float]  # from the number of the iteration to the loss


def main() -> None:
    """Measure, print and write the results file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch", type=int, default=4, help="patches (default 4)")
    parser.add_argument("--patch", type=int, default=48, help="side of lq (default 48)")
    parser.add_argument("--rounds", type=int, default=5, help="of all contenders (default 5)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lq = torch.rand(given.batch, 3, given.patch, given.patch)
    gt = torch.rand(given.batch, 3, SCALE * given.patch, SCALE * given.patch)
    steps, why = contenders(lq, gt)
    if why:
        print(f"{why}; ours alone")
    seconds = measure(steps, given.rounds)
    for name, value in seconds.items():
        times = f"  {seconds[THEIRS] / value:5.2f} times {THEIRS}" if THEIRS in seconds else ""
        print(
            f"{name:<24} {value * 1e3:8.1f} ms a step  {given.batch / value:7.2f} images/s{times}"
        )
    results = {
        "machine": describe(),
        "network": NETWORK,
        "batch": given.batch,
        "patch": given.patch,
        "rounds": given.rounds,
        "missing": why,
        "seconds_per_step": seconds,
    }
    given.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def contenders(lq: Tensor, gt: Tensor) -> tuple[dict[str, Step], str | None]:
    """Steps on a batch by name, all from the same weights; and why BasicSR's are not among them."""
    first = ours("none")
    weights = {name: x.clone() for name, x in first.network.state_dict().items()}
    found: dict[str, Step] = {}
    why = None
    try:
        for name, lowered in ((THEIRS, False), (f"{THEIRS} in autocast", True)):
            found[name] = their_step(weights, lq, gt, lowered=lowered)
    except ImportError as error:
        why = f"BasicSR cannot be imported ({error})"
    for name, training in (("ours", first), ("ours, amp: bf16", ours("bf16"))):
        training.network.load_state_dict(weights)
        found[name] = our_step(training, lq, gt)
    return found, why


def ours(amp: Literal["none", "bf16"]) -> Training:
    """Our run of the network."""
    options = Options(
        file=Path("benchmark.yml"),
        name="benchmark",
        model_type="SRModel",
        kind=ModelKind(),
        scale=SCALE,
        num_gpu=0,
        datasets={},
        network_g=NetworkOptions(type="SwinIR", arguments=NETWORK),
        train=TrainOptions(
            total_iter=1000,
            ema_decay=DECAY,
            optim_g=OptimOptions(type="Adam", lr=RATE),
            scheduler=SchedulerOptions(type="MultiStepLR", milestones=(900,), gamma=0.5),
            pixel_opt=LossOptions(type="L1Loss"),
            amp=amp,
        ),
    )
    return Training(options, Processes(torch.device("cpu")))


def our_step(training: Training, lq: Tensor, gt: Tensor) -> Step:
    """A step of ours."""
    names = [""] * len(lq)
    batch = TrainingBatch(lq, gt, None, names, names, list(range(len(lq))))

    def step(iteration: int) -> float:
        return training.step([batch], iteration)["l_pix"].item()

    return step


def their_step(weights: dict[str, Tensor], lq: Tensor, gt: Tensor, *, lowered: bool) -> Step:
    """A step of BasicSR's.

    Raises:
        ImportError: it is not installed, or what it needs is not.
    """
    declare_torchvision_operators()
    supply_functional_tensor()
    theirs = importlib.import_module("basicsr.models.sr_model")
    model = theirs.SRModel(
        {
            "num_gpu": 0,
            "is_train": True,
            "dist": False,
            "rank": 0,
            "scale": SCALE,
            "network_g": {"type": "SwinIR", **NETWORK},
            "path": {},
            "train": {
                "ema_decay": DECAY,
                "optim_g": {"type": "Adam", "lr": RATE},
                "scheduler": {"type": "MultiStepLR", "milestones": [900], "gamma": 0.5},
                "pixel_opt": {"type": "L1Loss"},
            },
        }
    )
    model.net_g.load_state_dict(weights, strict=False)  # ours keep no masks and indices

    def arithmetic() -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if lowered else nullcontext()

    def step(iteration: int) -> float:
        model.feed_data({"lq": lq, "gt": gt})
        with arithmetic():
            model.optimize_parameters(iteration)
        return float(model.get_current_log()["l_pix"])

    return step


def measure(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Seconds of the processor for a step of each.

    Raises:
        ValueError: the first losses differ by more than bfloat16 explains: not the same work.
    """
    losses = {name: step(1) for name, step in steps.items()}
    least, largest = min(losses.values()), max(losses.values())
    if largest - least > 0.01 * least:
        raise ValueError(f"the first losses are {losses}; expected the same from the same weights")
    taken = {name: list[float]() for name in steps}
    for iteration in range(2, 2 + rounds):
        for name, step in steps.items():
            began = time.process_time()
            step(iteration)
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


if __name__ == "__main__":
    main()
