"""What is measured: networks, precisions, sizes and goals, as data."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from restore.archs._blocks import round_up
from restore.archs._spec import ArchConfig, ArchSpec
from restore.official import official_models

Kind = Literal["inference", "training"]


@dataclass(frozen=True)
class Precision:
    """How a network computes.

    Attributes:
        name: on the command line and in results.
        dtype: of products.
        autocast: whether parameters and the sum of the branches stay in float32.
        tf32: whether float32 products may be rounded to tf32.
    """

    name: str
    dtype: torch.dtype
    autocast: bool = False
    tf32: bool = False

    @property
    def stored(self) -> torch.dtype:
        """Of parameters and inputs."""
        return torch.float32 if self.autocast else self.dtype

    @contextlib.contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Compute so."""
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.tf32
        try:
            with torch.autocast(device.type, self.dtype, enabled=self.autocast):
                yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", torch.float32),
        Precision("tf32", torch.float32, tf32=True),
        Precision("bf16", torch.bfloat16),
        Precision("fp16", torch.float16),
        Precision("autocast-bf16", torch.bfloat16, autocast=True),
        Precision("autocast-fp16", torch.float16, autocast=True),
    )
}
# what is timed, the most important first; training always keeps its parameters in float32
TIMED: dict[Kind, tuple[str, ...]] = {
    "inference": ("bf16", "autocast-bf16", "fp16"),
    "training": ("autocast-bf16", "autocast-fp16"),
}
SIDES = (512, 256, 1024)  # pixels of the input, the most telling first


@dataclass(frozen=True)
class Network:
    """A published network and how its authors trained it.

    Attributes:
        name: on the command line.
        variant: in `restore.official`.
        patch: side of a training patch, in pixels of the input.
        batch: patches of a step, on all of the authors' GPUs.
        each: patches of a step on one of them; 0 where no source says.
        tiny: settings of the same network small enough to rehearse with.
    """

    name: str
    variant: str
    patch: int
    batch: int
    each: int
    tiny: Mapping[str, Any] = field(hash=False)

    def build_settings(self, rehearsal: bool) -> tuple[ArchSpec, ArchConfig]:
        """Its architecture and configuration, the small one for a rehearsal."""
        found = [model for model in official_models() if model.variant == self.variant]
        found.sort(key=lambda model: model.config.get("img_size") != self.patch)
        spec, config = found[0].spec, found[0].config
        return spec, config.replaced(self.tiny, "rehearsal") if rehearsal else config

    @functools.cached_property
    def tiny_side(self) -> int:
        """Of an image in a rehearsal."""
        spec, config = self.build_settings(rehearsal=True)
        return round_up(TINY_SIDE, spec.input_rule(config).multiple)


_SWIN = {"embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4}
_HAT = {**_SWIN, "compress_ratio": 3, "squeeze_factor": 3}
_CROSS = {"embed_dim": 32, "depth": [2], "num_heads": [2], "split_size_0": [2], "split_size_1": [0]}
_HIT = {
    "embed_dim": 40,
    "depths": [3],
    "num_heads": [4],
    "base_win_size": [4, 4],
    "hier_win_ratios": [0.5, 1, 2],
}
_ATD = {**_SWIN, "category_size": 16, "num_tokens": 8, "reducted_dim": 4, "convffn_kernel_size": 3}
_UFORMER = {
    "img_size": 32,
    "win_size": 2,
    "embed_dim": 4,
    "depths": [2, 1, 1, 1, 1, 1, 1, 1, 2],
    "num_heads": [1, 1, 2, 2, 2, 2, 2, 1, 1],
}
NETWORKS = {
    network.name: network
    for network in (
        Network("SwinIR-M", "SwinIR-M classical x4", 64, 32, 4, _SWIN),
        Network("HAT", "HAT x4", 64, 32, 4, _HAT),
        Network("DRCT", "DRCT x4", 64, 32, 4, {**_SWIN, "gc": 4}),
        Network("SRFormer", "SRFormer x4", 64, 32, 8, _SWIN),
        Network("SwinIR-S", "SwinIR-S lightweight x4", 64, 64, 0, _SWIN),
        Network("SwinIR-L", "SwinIR-L real-world x4", 64, 32, 0, _SWIN),
        Network("HAT-L", "HAT-L x4", 64, 32, 4, _HAT),
        Network("CAT-A", "CAT-A x4", 64, 32, 8, _CROSS),
        Network("Uformer-B", "Uformer-B", 128, 32, 0, _UFORMER),
        Network("HiT-SRF", "HiT-SRF x4", 64, 64, 16, _HIT),
        Network("ATD", "ATD x4", 96, 32, 8, _ATD),
    )
}
NAMED = ("SwinIR-M", "HAT", "DRCT", "SRFormer")  # in the goals for speed in inference
TINY_SIDE, TINY_BATCH = 16, 2  # at least, in a rehearsal


@dataclass(frozen=True)
class Case:
    """One network at one size in one precision."""

    network: Network
    kind: Kind
    side: int
    batch: int
    precision: Precision

    @property
    def key(self) -> str:
        """Its name in results, such as "HAT/inference/512x512x1/bf16"."""
        size = f"{self.side}x{self.side}x{self.batch}"
        return f"{self.network.name}/{self.kind}/{size}/{self.precision.name}"

    @classmethod
    def named(cls, key: str) -> Case:
        """The case of a key.

        Raises:
            KeyError, ValueError: it is no key.
        """
        network, kind, size, precision = key.split("/")
        side, _, batch = size.split("x")
        if kind not in TIMED:
            raise ValueError(f"{key}: {kind!r} is neither inference nor training")
        return cls(NETWORKS[network], kind, int(side), int(batch), PRECISIONS[precision])


def all_cases(rehearsal: bool = False) -> list[Case]:
    """Every case, those of the goals first."""
    cases: list[Case] = []
    for network in NETWORKS.values():
        for kind, side, batch in _sizes(network, rehearsal):
            for name in TIMED[kind]:
                cases.append(Case(network, kind, side, batch, PRECISIONS[name]))
    order = [(kind, name) for kind in ("inference", "training") for name in TIMED[kind]]

    def rank(case: Case) -> tuple[bool, bool, int, int]:
        half = case.precision.dtype == torch.float16
        largest = case.batch == case.network.batch or case.kind == "inference"
        least = case.side in (256, 1024) or not largest
        return (
            half,
            case.network.name not in NAMED,
            order.index((case.kind, case.precision.name)) % len(TIMED["inference"]),
            int(least),
        )

    return sorted(cases, key=rank)


def _sizes(network: Network, rehearsal: bool) -> Iterator[tuple[Kind, int, int]]:
    if rehearsal:
        yield "inference", network.tiny_side, 1
        yield "training", network.tiny_side, TINY_BATCH
        return
    for side in SIDES:
        yield "inference", side, 1
    yield "training", network.patch, network.batch
    if network.each:
        yield "training", network.patch, network.each


@dataclass(frozen=True)
class Goal:
    """What a measured ratio has to be.

    Attributes:
        name: in words.
        kind: of the cases that it is for.
        measure: "time" and "memory" are those of `against` over those of `ours`; "floor" is the
            composite floor over the time of `ours`.
        ours: which of our contenders.
        against: which other contender; "" for the floor.
        least: the ratio that meets it.
        networks: that it is for.
    """

    name: str
    kind: Kind
    measure: Literal["time", "memory", "floor"]
    ours: str
    against: str
    least: float
    networks: tuple[str, ...] = tuple(NETWORKS)

    def is_for(self, case: Case) -> bool:
        """Whether it says anything of a case; all are set for bf16."""
        return (
            case.kind == self.kind
            and case.precision.dtype == torch.bfloat16
            and case.network.name in self.networks
        )


GOALS = (
    Goal("4 x eager", "inference", "time", "restore", "eager", 4.0, NAMED),
    # torch.compile with max-autotune replays CUDA graphs, so ours is replayed too
    Goal("1.8 x compiled", "inference", "time", "restore-graph", "compiled", 1.8, NAMED),
    Goal("half of eager's memory", "inference", "memory", "restore", "eager", 2.0),
    Goal("60 % of the floor", "inference", "floor", "restore", "", 0.6),
    Goal("2.5 x eager", "training", "time", "restore", "eager", 2.5),
    Goal("half of eager's memory", "training", "memory", "restore", "eager", 2.0),
    Goal("60 % of the floor", "training", "floor", "restore", "", 0.6),
)
