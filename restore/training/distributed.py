"""One process or many: who this is, what all say together, and networks that train together.

Processes are started by torchrun. Gradients go over NCCL on GPUs and gloo on CPUs; words among the
processes go over gloo always, so that they never wait for a GPU.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from restore.devices import resolve_device
from restore.errors import RestoreError, UsageError
from restore.training.options import DistOptions

Launcher = Literal["none", "pytorch"]
Strategy = Literal["ddp", "fsdp"]
T = TypeVar("T")


class DeviceWarning(UserWarning):
    """A run computes elsewhere than its option file asks for."""


# validation of large pictures may take a process so long that the others would give up on it
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    device: torch.device
    rank: int = 0
    count: int = 1
    strategy: Strategy = "ddp"
    words: dist.ProcessGroup | None = field(default=None, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of the network only."""
        return self.count > 1 and self.strategy == "fsdp"

    def wait(self) -> None:
        """For all processes to come here."""
        if self.words is not None:
            dist.barrier(self.words)

    def gather(self, item: T) -> list[T]:
        """One item of every process, in their order, to all of them."""
        if self.words is None:
            return [item]
        items: list[Any] = [None] * self.count
        dist.all_gather_object(items, item, group=self.words)
        return items

    @contextlib.contextmanager
    def agreed(self, wanted: bool = True) -> Iterator[None]:
        """Around what may fail in one process alone: then all of them fail, and so end together.

        All processes come here, and leave it when all have done their part. RestoreErrors count;
        those of all processes are raised as the first one, with the other messages behind it. Not
        `wanted`: nothing is done.
        """
        if self.words is None or not wanted:
            yield
            return
        problem = None
        try:
            yield
        except RestoreError as error:
            problem = error
        failed = torch.tensor(float(problem is not None))
        dist.all_reduce(failed, group=self.words)
        if failed.item():
            problems = [each for each in self.gather(problem) if each is not None]
            texts = dict.fromkeys(str(each) for each in problems)
            raise type(problems[0])("; ".join(texts)) from problem

    def from_first(self, item: T) -> T:
        """What the first process has, to all."""
        items = [item]
        if self.words is not None:
            dist.broadcast_object_list(items, src=0, group=self.words)
        return items[0]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, of a tensor on the CPU."""
        if self.words is not None:
            dist.all_reduce(values, group=self.words)
            values /= self.count
        return values

    def together(self, network: nn.Module, find_unused: bool) -> nn.Module:
        """The network to call in training: gradients become means over all processes.

        Random numbers and data differ between processes; parameters begin as the first one's.
        """
        if self.count == 1:
            return network
        if self.is_sharded:
            return self.spread(network)
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            network,
            device_ids=ids,
            find_unused_parameters=find_unused,
            gradient_as_bucket_view=True,
        )

    def spread(self, network: nn.Module) -> nn.Module:
        """The same network, each process with a part of its parameters, where that is asked for."""
        if self.is_sharded:
            try:
                from torch.distributed.fsdp import fully_shard
            except ImportError as error:
                raise UsageError(
                    f"dist_params: strategy fsdp needs PyTorch 2.6 or newer, and this is "
                    f"{torch.__version__}; use ddp"
                ) from error
            # the groups of blocks of the Swin family: a group is whole only while it computes
            for group in getattr(network, "layers", ()):
                fully_shard(group)
            # results are often a part of a larger tensor, which FSDP cannot put its hooks on
            network.register_forward_hook(_cloned)
            fully_shard(network)
        return network


def _cloned(module: nn.Module, inputs: Any, result: Tensor) -> Tensor:
    return result.clone()


def without_sync(network: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Around a backward pass whose gradients more will be added to, unless it is the last one."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()
    return contextlib.nullcontext()


def device_note(num_gpu: int | Literal["auto"], count: int = 1) -> str | None:
    """What to know where GPUs are asked for and others are taken, in words; None: all is as asked.

    Args:
        num_gpu: of the option file.
        count: processes of the run, each with a GPU where there are any.
    """
    if num_gpu in ("auto", 0):
        return None
    asked = f"num_gpu is {num_gpu}"
    if torch.cuda.is_available():
        if count in (1, num_gpu):
            return None
        return f"{asked}, but torchrun started {count} processes: each takes one GPU"
    found = resolve_device("auto")
    if found.type != "cpu" and num_gpu == 1:
        return None
    there = "no GPU is found here" if found.type == "cpu" else f"there is one GPU, {found}"
    where = "the CPU" if found.type == "cpu" else str(found)
    whom = "one process computes" if count == 1 else f"all {count} processes compute"
    return (
        f"{asked}, but {there}: {whom} on {where}, which may take very long. `restore doctor` "
        "tells what PyTorch finds; num_gpu: 0 or --device cpu asks for the CPU, num_gpu: auto for "
        "what is there"
    )


def _check_gpus(num_gpu: int) -> None:
    """UsageError where one process is to train on several GPUs."""
    there = torch.cuda.device_count()
    few = f"num_gpu is {num_gpu}, but one process takes one GPU, and there "
    few += "is 1 here" if there == 1 else f"are {there} here"
    if there == 1:
        raise UsageError(
            f"{few}; set num_gpu: 1, and train.accum_iter: {num_gpu} for the batch of {num_gpu}"
        )
    use = min(num_gpu, there)
    fewer = "" if use == num_gpu else f" (and num_gpu: {use})"
    raise UsageError(
        f"{few}; start one process for each, `torchrun --nproc_per_node={use} -m restore.train "
        f"-opt FILE --launcher pytorch`{fewer}, or set num_gpu: 1"
    )


@contextlib.contextmanager
def processes(
    launcher: Launcher, num_gpu: int | Literal["auto"], options: DistOptions
) -> Iterator[Processes]:
    """Join the other processes of a run, and leave them at the end.

    Args:
        launcher: "none" for one process; "pytorch" where torchrun has started several.
        num_gpu: 0 computes on the CPU.
        options: backend and strategy.

    Raises:
        UsageError: torchrun has not started this process, or there are not as many GPUs.

    Warns:
        DeviceWarning: GPUs are asked for, and others are taken.
    """
    on_gpu = num_gpu != 0 and torch.cuda.is_available()
    if launcher == "none":
        if isinstance(num_gpu, int) and num_gpu > 1 and on_gpu:
            _check_gpus(num_gpu)
        _warn(device_note(num_gpu))
        yield Processes(resolve_device("auto" if num_gpu != 0 else "cpu"))
        return
    if "RANK" not in os.environ:
        raise UsageError(
            "--launcher pytorch: this process was not started by torchrun; start it with "
            "`torchrun --nproc_per_node=2 -m restore.train -opt FILE --launcher pytorch`"
        )
    local = int(os.environ["LOCAL_RANK"])
    if on_gpu and local >= torch.cuda.device_count():
        raise UsageError(
            f"--launcher pytorch: process {local} of this machine has no GPU of its own: there are "
            f"{torch.cuda.device_count()}; lower --nproc_per_node, or set num_gpu: 0"
        )
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    chosen = options.backend or ("nccl" if on_gpu else "gloo")
    if chosen == "nccl" and not on_gpu:
        raise UsageError(
            f"{options.where('backend') or 'dist_params'}: backend is nccl, which needs a GPU for "
            "each process, and these compute on the CPU; set backend: gloo, or leave it out"
        )
    dist.init_process_group(chosen, timeout=_PATIENCE)
    try:
        words = dist.new_group(backend="gloo", timeout=_PATIENCE)
        _warn(device_note(num_gpu, dist.get_world_size()))
        yield Processes(device, dist.get_rank(), dist.get_world_size(), options.strategy, words)
    finally:
        dist.destroy_process_group()


def _warn(note: str | None) -> None:
    if note is not None:
        warnings.warn(note, DeviceWarning, stacklevel=2)
