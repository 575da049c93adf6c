"""What stops a run: a signal, or a loss that is no number."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor

from restore.errors import RestoreError
from restore.training.distributed import Processes
from restore.training.model import Batch
from restore.training.states import write_whole

_BEHIND = 4  # steps that the watch may lag behind a GPU, which it never waits for otherwise


class NonFiniteLossError(RestoreError):
    """A loss became NaN or infinite; its batch was saved."""


@dataclass(frozen=True)
class _Step:
    iteration: int
    batches: Sequence[Batch]
    names: tuple[str, ...]
    values: Tensor  # on the CPU, once `ready` has happened
    ready: torch.cuda.Event | None

    def is_over(self) -> bool:
        return self.ready is None or self.ready.query()


class FiniteWatch:
    """Looks at every loss of every step, a few steps late on a GPU so that nothing waits for it.

    Args:
        folder: where a batch is saved whose loss is no number.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._steps: deque[_Step] = deque()

    def see(self, iteration: int, batches: Sequence[Batch], losses: Mapping[str, Tensor]) -> None:
        """Take the losses of a step, and look at those that are there.

        Raises:
            NonFiniteLossError: one is NaN or infinite.
        """
        values = torch.stack([value.detach() for value in losses.values()])
        ready = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        self._steps.append(_Step(iteration, batches, tuple(losses), values, ready))
        while self._steps and (len(self._steps) > _BEHIND or self._steps[0].is_over()):
            self._check(self._steps.popleft())

    def catch_up(self) -> None:
        """Look at all steps that were taken; before anything of them is saved."""
        while self._steps:
            self._check(self._steps.popleft())

    def _check(self, step: _Step) -> None:
        if step.ready is not None:
            step.ready.synchronize()
        finite = torch.isfinite(step.values)
        if bool(finite.all()):
            return
        bad = [name for name, good in zip(step.names, finite.tolist(), strict=True) if not good]
        path = self._folder / f"non_finite_{step.iteration}.pth"
        content = {
            "iter": step.iteration,
            "losses": dict(zip(step.names, step.values.tolist(), strict=True)),
            "batches": [
                {
                    "lq": batch.lq.cpu(),
                    "gt": batch.gt.cpu(),
                    "gt_path": list(batch.gt_path),
                    "index": list(batch.index),
                }
                for batch in step.batches
            ],
        }
        write_whole(path, content)
        pictures = [str(name) for batch in step.batches for name in batch.gt_path]
        raise NonFiniteLossError(
            f"iteration {step.iteration}: {', '.join(bad)} is NaN or infinite, with patches of "
            f"{', '.join(pictures) or 'unnamed pictures'}; the batch is in {path}. The training "
            "states before it are whole: go on from one with a lower learning rate, grad_clip, or "
            "amp: bf16 or none in place of fp16"
        )


def check_weights(iteration: int, state: Mapping[str, Tensor]) -> None:
    """NonFiniteLossError where weights that are to be saved are NaN or infinite.

    The step before may have had a finite loss with gradients that are not.
    """
    bad = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise NonFiniteLossError(
            f"iteration {iteration}: {len(bad)} of the network's {len(state)} tensors are NaN or "
            f"infinite, {bad[0]} among them, though no loss was; nothing of it is saved. The "
            "training states before it are whole: go on from one with a lower learning rate or "
            "grad_clip"
        )


class Stop:
    """Whether the run is to save and end, by a signal, the same for all processes.

    Signals are Ctrl-C (SIGINT), SIGTERM, and SIGHUP of a terminal that is closed.

    Attributes:
        signal: number of the signal that all processes know of; 0: none.
    """

    def __init__(self, processes: Processes) -> None:
        self.signal = 0
        self._processes = processes
        self._heard = 0
        self._told: tuple[Tensor, dist.Work | None] | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Around the run; a second signal ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # signals go to the main thread alone
            return
        names = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            names.append(signal.SIGHUP)  # left alone where the caller ignores it, as nohup does
        before = {name: signal.signal(name, self._hear) for name in names}
        try:
            yield self
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._heard:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self._heard = number

    def is_urgent(self) -> bool:
        """Whether this process, alone in its run, was asked to stop and need not ask others."""
        return self._heard > 0 and self._processes.words is None

    def is_due(self) -> bool:
        """Whether any process was asked to stop, as known one step ago where there are several.

        All processes call it once a step. What they tell each other travels beside the step, so
        that none waits for another.
        """
        if self._processes.words is None:
            self.signal = self._heard
            return self.signal > 0
        if self._told is not None:
            flag, work = self._told
            if work is not None:
                work.wait()
            self.signal = int(flag.item())
        flag = torch.tensor(self._heard)
        most = dist.ReduceOp.MAX
        work = dist.all_reduce(flag, most, group=self._processes.words, async_op=True)
        self._told = (flag, work)
        return self.signal > 0
