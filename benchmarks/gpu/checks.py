"""Whether networks are right, before anything is timed.

The truth is the network in float64. What PyTorch's own arithmetic may be off by, in a precision, is
what the definitions of all ops are off by in it; ours may be off by twice that and one unit in the
last place of the largest value. A peer only has to be the same function, which shows in float32: it
may be off by more, as stock convolutions alone differ by several times with the layout of their
input. The largest error of an image counts, and the median of several images: a network that
decides by comparing values may decide otherwise on one.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.cases import Network, Precision
from benchmarks.gpu.subjects import SEED, only, peers, subject
from benchmarks.gpu.timing import Clock, in_words, why_not
from restore.costs import natural_side

IMAGES = 3
OURS_MAY, PEERS_MAY = 2, 16  # times what the definitions are off by
Gradients = dict[str, Tensor]


@dataclass(frozen=True)
class Result:
    """What a network made of one image: its output, and gradients by parameter."""

    output: Tensor
    gradients: Gradients


@dataclass(frozen=True)
class Errors:
    """Medians over the images."""

    largest: float  # error of an output
    output: float  # norm of the outputs' errors over that of the outputs
    gradient: float  # the same of all gradients; 0 if there are none
    gradients: dict[str, float]  # norms of the gradients' errors by the kind of parameter


class NetworkCheck:
    """One network's truth, and comparisons with it.

    Args:
        network: what to check.
        device: where.
        rehearsal: whether it is the small form of the network.
        gradients: whether they are checked where the precision is one of training.
    """

    def __init__(
        self, network: Network, device: torch.device, rehearsal: bool, gradients: bool = True
    ) -> None:
        self.device, self.gradients = device, gradients
        self.clock = Clock(device)
        self.subject = subject(network, rehearsal)
        spec, config = self.subject.spec, self.subject.config
        side = network.tiny_side if rehearsal else natural_side(spec, config)
        generator = torch.Generator().manual_seed(SEED)
        self.images = [self.subject.image(generator, 1, side) for _ in range(IMAGES)]
        large = side * spec.scale(config)
        # gradients are those of a fixed weighted sum, as the L1 loss has none where it is 0
        self.weights = torch.randn(1, self.images[0].shape[1], large, large, generator=generator)
        net = self.subject.copied(device, torch.float64)
        with only(()):
            self.truth = self._results(net, Precision("fp64", torch.float64), gradients)

    def run(self, precision: Precision, wanted: Collection[str]) -> dict[str, Any]:
        """Ours and those peers in one precision, as an entry of the results."""
        # a network that is converted as a whole is not trained
        trained = precision.autocast or precision.dtype == torch.float32
        gradients = self.gradients and trained
        net = self.subject.copied(self.device, precision.stored)
        with only(()):
            own = self._errors(self._results(net, precision, gradients))
        entry: dict[str, Any] = {"images": IMAGES, "side": self.images[0].shape[2]}
        entry.update(self._judged(net, precision, own, gradients, OURS_MAY))
        entry["peers"] = {}
        for name, make in peers(self.subject, net).items():
            if name not in wanted:
                continue
            try:
                judged = self._judged(make(), precision, own, gradients, PEERS_MAY)
            except Exception as error:
                entry["peers"][name] = why_not(error)
                continue
            if precision.name != "fp32" and "error" in judged:
                # the same function in float32; what half precision costs it is its own affair
                judged["passed"] = math.isfinite(judged["error"])
            entry["peers"][name] = judged
        self.clock.free()
        return entry

    def _judged(
        self, module: nn.Module, precision: Precision, own: Errors, gradients: bool, may: int
    ) -> dict[str, Any]:
        try:
            found = self._errors(self._results(module, precision, gradients))
        except Exception as error:
            self.clock.free()
            return {"passed": False, "failed": in_words(error)}
        largest = max(result.output.abs().max().item() for result in self.truth)
        limit = may * own.largest + last_place(largest, precision.dtype)
        judged: dict[str, Any] = {
            "passed": found.largest <= limit,  # false for NaN too
            "error": found.largest,
            "own": own.largest,
            "limit": limit,
            "relative": {"inference": found.output, "training": found.gradient},
        }
        if gradients:
            ratios = self._ratios(found, own, precision, may)
            worst = max(ratios, key=lambda kind: _order(ratios[kind]))
            judged["worst_gradient"] = {"parameter": worst, "of_limit": round(ratios[worst], 3)}
            judged["passed"] = judged["passed"] and ratios[worst] <= 1
        return judged

    def _ratios(
        self, found: Errors, own: Errors, precision: Precision, may: int
    ) -> dict[str, float]:
        """Of each kind of parameter, the error of its gradients over what it may be."""
        norms = _by_kind(self.truth[0].gradients)
        eps = torch.finfo(precision.dtype).eps
        return {
            kind: error / (may * own.gradients[kind] + eps * norms[kind])
            for kind, error in found.gradients.items()
        }

    def _results(self, module: nn.Module, precision: Precision, gradients: bool) -> list[Result]:
        results = []
        for image in self.images:
            x = image.to(self.device, precision.stored)
            with precision.on(self.device), torch.set_grad_enabled(gradients):
                module.zero_grad(set_to_none=True)
                y = module(x)
                if gradients:
                    (y.to(self.weights.dtype) * self.weights.to(self.device)).sum().backward()
            found = {
                name.removeprefix("net."): p.grad.double()
                for name, p in module.named_parameters()
                if p.grad is not None
            }
            results.append(Result(y.detach().double(), found))
        module.zero_grad(set_to_none=True)
        return results

    def _errors(self, results: list[Result]) -> Errors:
        largest, outputs, gradients, kinds = [], [], [], []
        for result, truth in zip(results, self.truth, strict=True):
            off = result.output - truth.output
            largest.append(off.abs().max().item())
            outputs.append((off.norm() / truth.output.norm()).item())
            by_name = {name: g - truth.gradients[name] for name, g in result.gradients.items()}
            gradients.append(norm(by_name) / (norm(truth.gradients) or 1.0))
            kinds.append(_by_kind(by_name))
        by_kind = {kind: _median([each[kind] for each in kinds]) for kind in kinds[0]}
        return Errors(_median(largest), _median(outputs), _median(gradients), by_kind)


def norm(tensors: Gradients) -> float:
    """The norm of all together."""
    return math.sqrt(sum(g.square().sum().item() for g in tensors.values()))


def _by_kind(gradients: Gradients) -> dict[str, float]:
    """Norms of the gradients of all parameters whose names differ only in numbers."""
    squares: dict[str, float] = {}
    for name, g in gradients.items():
        kind = re.sub(r"\d+", "*", name)
        squares[kind] = squares.get(kind, 0.0) + g.square().sum().item()
    return {kind: math.sqrt(value) for kind, value in squares.items()}


def _median(values: list[float]) -> float:
    """The median; NaN or infinity, wherever it stands, is what it was."""
    wrong = [value for value in values if not math.isfinite(value)]
    return wrong[0] if wrong else statistics.median(values)


def _order(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def last_place(largest: float, dtype: torch.dtype) -> float:
    """The unit in the last place of a magnitude."""
    _, exponent = math.frexp(largest)
    return math.ldexp(torch.finfo(dtype).eps, exponent - 1)
