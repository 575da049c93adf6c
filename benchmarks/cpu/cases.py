"""What is measured on a CPU: networks, sizes, threads and goals, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.gpu.cases import NETWORKS as PUBLISHED
from benchmarks.gpu.cases import Network
from restore.archs._blocks import round_up

SIDES = (64, 128, 256)  # pixels of the input
CURVE = (64, 128, 256, 512, 1024, 2048)
THREADS = (1, 2)
TINY_SIDES = (8, 16)


def _network(name: str, variant: str, like: str, **tiny: Any) -> Network:
    """A published network whose patch is 64 pixels, and whose small form is like another's."""
    return Network(name, variant, 64, 0, 0, {**PUBLISHED[like].tiny, **tiny})


NETWORKS = {
    network.name: network
    for network in (
        _network("SwinIR-S", "SwinIR-S lightweight x2", "SwinIR-S"),
        _network("SwinIR-M", "SwinIR-M classical x4", "SwinIR-M"),
        _network("HAT-S", "HAT-S x4", "HAT"),
        _network("HAT", "HAT x4", "HAT"),
        _network("SRFormer-light", "SRFormer-light x4", "SRFormer"),
        _network("CAT-R", "CAT-R x4", "CAT-A", split_size_1=[4]),
        _network("Uformer-S", "Uformer-S", "Uformer-B"),
        _network("HiT-SRF", "HiT-SRF x4", "HiT-SRF"),
        _network("DRCT", "DRCT x4", "DRCT"),
        _network("ATD-light", "ATD-light x4", "ATD"),
    )
}
LEAST_SIDE = {"Uformer-S": 128}  # of those that do not take all sides
LONGEST_CURVE = {"SwinIR-S": 2048, "HiT-SRF": 2048}
OTHER_CURVES = 512


@dataclass(frozen=True)
class Case:
    """One network at one size on so many threads.

    Attributes:
        curve: whether only ours is timed, to see how time and memory grow.
    """

    network: Network
    side: int
    threads: int
    curve: bool = False

    @property
    def key(self) -> str:
        """Its name in results, such as "HAT/128x128/1t" or "HAT/128x128/2t/curve"."""
        name = f"{self.network.name}/{self.side}x{self.side}/{self.threads}t"
        return f"{name}/curve" if self.curve else name

    @classmethod
    def named(cls, key: str) -> Case:
        """The case of a key.

        Raises:
            KeyError, ValueError: it is no key.
        """
        network, size, threads, *rest = key.split("/")
        if rest not in ([], ["curve"]):
            raise ValueError(f"{key}: ends in {'/'.join(rest)}; expected nothing or curve")
        side = int(size.split("x")[0])
        return cls(NETWORKS[network], side, int(threads.removesuffix("t")), bool(rest))


def all_cases(rehearsal: bool = False) -> list[Case]:
    """The cases of the table: small ones first, as they are soon done."""
    return [
        Case(network, side, threads)
        for index in range(len(SIDES))
        for network in NETWORKS.values()
        for side in _sides(network, rehearsal)[index : index + 1]
        for threads in THREADS
    ]


def curve_cases(rehearsal: bool = False) -> list[Case]:
    """The cases of the curves, on one thread."""
    return [
        Case(network, side, THREADS[0], curve=True)
        for network in NETWORKS.values()
        for side in (_sides(network, rehearsal) if rehearsal else CURVE)
        if LEAST_SIDE.get(network.name, 0) <= side or rehearsal
        if side <= LONGEST_CURVE.get(network.name, OTHER_CURVES)
    ]


def _sides(network: Network, rehearsal: bool) -> list[int]:
    """Sides of the input that the network takes."""
    spec, config = network.build_settings(rehearsal)
    rule = spec.input_rule(config)
    wanted = TINY_SIDES if rehearsal else SIDES
    least = max(rule.minimum, 0 if rehearsal else LEAST_SIDE.get(network.name, 0))
    sides = {round_up(max(side, least), rule.multiple) for side in wanted}
    return sorted(sides)


@dataclass(frozen=True)
class Goal:
    """What a measured ratio has to be.

    Attributes:
        name: in words.
        measure: "time" and "memory" are those of `against` over those of `ours`.
        ours: which of our contenders.
        against: which other one.
        least: the ratio that meets it.
        of_floor: the share of the floor that meets it too, where the ratio lies beyond; 0 if none.
        networks: that it is for; all if empty.
        side: that it is for; all if 0.
    """

    name: str
    measure: Literal["time", "memory"]
    ours: str
    against: str
    least: float
    of_floor: float = 0.0
    networks: tuple[str, ...] = ()
    side: int = 0

    def is_for(self, case: Case) -> bool:
        """Whether it says anything of a case."""
        return (
            not case.curve
            and (not self.networks or case.network.name in self.networks)
            and self.side in (0, case.side)
        )


_OTHERS = tuple(name for name in NETWORKS if name not in ("SwinIR-S", "SwinIR-M"))
SHARE = 0.8
GOALS = (
    Goal("4 x eager", "time", "restore", "eager", 4.0, SHARE, ("SwinIR-S",)),
    Goal("2.9 x eager", "time", "restore", "eager", 2.9, SHARE, ("SwinIR-M",)),
    Goal("3 x eager", "time", "restore", "eager", 3.0, SHARE, _OTHERS),
    Goal("1.25 x OpenVINO", "time", "restore", "openvino", 1.25),
    Goal("bf16: 5.5 x eager", "time", "restore-bf16", "eager", 5.5, 0.0, ("SwinIR-M",)),
    Goal("bf16: 1.5 x OpenVINO", "time", "restore-bf16", "openvino-bf16", 1.5),
    Goal("a third of eager's memory", "memory", "restore", "eager", 3.0, 0.0, (), 256),
)
