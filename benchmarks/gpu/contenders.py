"""What runs against what: each a step that can be timed, or the reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.eager import Eager
from benchmarks.gpu.cases import Case
from benchmarks.gpu.subjects import (
    InferenceStep,
    Step,
    Subject,
    inputs,
    only,
    peers,
    step_of,
)
from benchmarks.gpu.timing import Clock, TimeLimit, time_limit

ALL = (
    "restore",
    "restore-graph",
    "restore-torch",
    "restore-compiled",
    "eager",
    "spandrel",
    "compiled",
)
USUAL = ("restore", "restore-graph", "eager", "spandrel", "compiled")
MODE, REGIONS_MODE = "max-autotune", "max-autotune-no-cudagraphs"
MOST_SHAPES = 64  # of groups, or of Uformer's blocks, that are compiled one by one
ADAM_COPIES = 2  # of the parameters, that its state is as large as


@dataclass
class Contender:
    """One that can be timed.

    Attributes:
        call: one call or step.
        module: what it runs, for comparisons; None if that cannot be called alone.
        row: what is known of it beside its times.
    """

    call: Callable[[], Tensor]
    module: nn.Module | None
    row: dict[str, Any] = field(default_factory=dict)


class Lineup:
    """The contenders of one case.

    Args:
        case: what to run.
        found: its network.
        device: where.
        compile_limit: seconds that one compilation may take.
    """

    def __init__(
        self, case: Case, found: Subject, device: torch.device, compile_limit: float
    ) -> None:
        self.case, self.found = case, found
        self.clock = Clock(device)
        self.compile_limit = compile_limit
        self.net = found.copied(device, case.precision.stored)
        self.x, self.target = inputs(found, case, device)

    def make(self, name: str) -> Contender:
        """A contender that has run.

        Raises:
            LookupError: there is no such thing for this case.
            ImportError: it needs a package that is not installed.
            Exception: whatever it fails with.
        """
        if name == "restore":
            return self._plain(self._step(self.net))
        if name == "restore-torch":
            stock = self._plain(_StockOps(self._step(self.net)))
            stock.module = None  # alone it would take other paths
            return stock
        if name == "restore-graph":
            return self._graph()
        if name == "restore-compiled":
            return self._compiled(self.net, None)
        if name == "compiled":
            whole, regions = Eager(self.net), Eager(self.net)
            return self._compiled(whole, regions)
        return self._plain(self._step(peers(self.found, self.net)[name]()))

    def _step(self, module: nn.Module) -> Step:
        return step_of(self.case.kind, module, self.x, self.target, self.case.precision)

    def _plain(self, step: Step | _StockOps) -> Contender:
        step()  # compiles kernels, chooses algorithms, makes the optimizer's state
        step.forget()
        peak = self.clock.peak(step)
        step.forget()
        kept = self._held(step.module) + self._states()
        row = {} if peak is None else {"memory": peak + kept}
        return Contender(step, step.module, row)

    def _held(self, module: nn.Module) -> int:
        """Bytes of parameters and buffers."""
        tensors = [*module.parameters(), *module.buffers()]
        return sum(t.numel() * t.element_size() for t in tensors)

    def _states(self) -> int:
        """Bytes of the optimizer's state."""
        count = sum(p.numel() * p.element_size() for p in self.net.parameters())
        return ADAM_COPIES * count * (self.case.kind == "training")

    def _graph(self) -> Contender:
        if self.case.kind == "training" or not self.clock.on_gpu:
            raise LookupError("CUDA graphs are for inference on a GPU")
        before = self.clock.reserved()
        call = _Replayed(InferenceStep(self.net, self.x, self.case.precision))
        memory = self.clock.reserved() - before + self._held(self.net)
        return Contender(call, None, {"memory": memory})

    def _compiled(self, whole: nn.Module, regions: Eager | None) -> Contender:
        torch._dynamo.reset()  # so that no earlier case counts as a compilation of this one
        if regions is not None:
            # masks are buffers in the authors' networks: they are not made by a compiled graph
            InferenceStep(whole, self.x, self.case.precision)()
            regions.stored = whole.stored
        before = self.clock.reserved()
        try:
            contender = self._within_limit(torch.compile(whole, dynamic=False, **self._how(MODE)))
            contender.row["compiled"] = f"the whole network, {MODE}"
        except TimeLimit:
            torch._dynamo.reset()
            if regions is None:
                raise LookupError(f"compiling passed {self.compile_limit:g} s") from None
            torch._dynamo.config.recompile_limit = MOST_SHAPES
            regions.group = torch.compile(regions.group, dynamic=False, **self._how(REGIONS_MODE))
            try:
                contender = self._within_limit(regions)
            except TimeLimit:
                raise LookupError(
                    f"compiling passed {self.compile_limit:g} s, of the whole network and of its "
                    "groups"
                ) from None
            contender.row["compiled"] = (
                f"each group, {REGIONS_MODE}: the whole network passed {self.compile_limit:g} s"
            )
        peak = self.clock.peak(contender.call)
        if peak is not None:
            # graphs keep their memory between calls, what runs without them does not
            grown = max(self.clock.reserved() - before, peak + self._states())
            contender.row["memory"] = grown + self._held(self.net)
        return contender

    def _how(self, mode: str) -> dict[str, Any]:
        # without a GPU only the way through this program is tried
        return {"mode": mode} if self.clock.on_gpu else {"backend": "eager"}

    def _within_limit(self, module: nn.Module) -> Contender:
        step = self._step(module)

        def call() -> Tensor:
            torch.compiler.cudagraph_mark_step_begin()
            return step()

        began = time.perf_counter()
        with time_limit(self.compile_limit):
            for _ in range(3):  # traces, records the graph, replays it
                call()
            self.clock.synchronize()
        step.forget()
        return Contender(call, None, {"compile_s": round(time.perf_counter() - began, 1)})

    def compared(self, contender: Contender) -> Tensor | None:
        """What has to agree with that of the others at this size: the output of inference, or the
        gradients of a fixed weighted sum, one after the other by name."""
        if self.case.kind == "inference":
            return contender.call().detach().clone()
        if contender.module is None:
            return None
        module = contender.module.eval()
        with self.case.precision.on(self.x.device):
            y = module(self.x)
        generator = torch.Generator(self.x.device).manual_seed(0)
        weights = torch.randn(y.shape, device=self.x.device, generator=generator)
        (y.float() * weights).sum().backward()
        named = {
            name.removeprefix("net."): p.grad
            for name, p in module.named_parameters()
            if p.grad is not None
        }
        flat = torch.cat([named[name].flatten() for name in sorted(named)])
        module.zero_grad(set_to_none=True)
        return flat


class _StockOps:
    """A step whose ops all take the path of stock ops."""

    def __init__(self, step: Step) -> None:
        self.step, self.module = step, step.module

    def __call__(self) -> Tensor:
        with only(("torch",)):
            return self.step()

    def forget(self) -> None:
        self.step.forget()


class _Replayed:
    """A call recorded in a CUDA graph."""

    def __init__(self, step: InferenceStep) -> None:
        self.x = step.x
        self.static = self.x.clone()
        step = InferenceStep(step.module, self.static, step.precision)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.y = step()

    def __call__(self) -> Tensor:
        self.static.copy_(self.x)
        self.graph.replay()
        return self.y
