"""Which of several processes this is, where torchrun or something like it started them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from restore.errors import UsageError


@dataclass(frozen=True)
class Launch:
    """This process among those that were started together."""

    rank: int = 0  # of all machines
    count: int = 1
    local_rank: int = 0  # of this machine
    local_count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """What RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE say; one process without them.

        Raises:
            UsageError: one of them is no whole number, or they contradict each other.
        """
        if "RANK" not in environment or "WORLD_SIZE" not in environment:
            return cls()
        rank, count = (_number(environment, name, 0) for name in ("RANK", "WORLD_SIZE"))
        local_rank = _number(environment, "LOCAL_RANK", rank)
        local_count = _number(environment, "LOCAL_WORLD_SIZE", max(1, min(count, local_rank + 1)))
        if not rank < count or not local_rank < local_count:
            raise UsageError(
                f"the environment says RANK={rank} of WORLD_SIZE={count} and LOCAL_RANK="
                f"{local_rank} of LOCAL_WORLD_SIZE={local_count}; expected ranks below the "
                "numbers of processes; unset them to run one process"
            )
        return cls(rank, count, local_rank, local_count)

    def device(self, asked: str, gpus: int) -> str:
        """The device of this process: its own GPU where several share the work.

        Args:
            asked: of the user; another than "auto" and "cuda" is taken as it is.
            gpus: how many there are.
        """
        if self.count == 1 or not gpus or asked not in ("auto", "cuda"):
            return asked
        # more processes than GPUs share them; a launcher may also show each process one GPU
        return f"cuda:{self.local_rank % gpus}"


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise UsageError(f"the environment says {name}={text!r}; expected a whole number, or unset")
    return int(text)
