"""A small network, small sets of pictures, and rows with numbers of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore.bench.cache import Cache
from restore.bench.protocols import Protocol, protocol_of
from restore.bench.results import ModelFacts, PictureScore, Row
from restore.bench.runs import Contender, SetRun, Settings, contender
from restore.image_io import Picture, write_picture
from restore.model import Model


def as_contender(model: Model) -> Contender:
    return contender(model, f"{model.name}.pth", model.name)


@dataclass(frozen=True)
class OnDisk:
    """What a set says of a picture."""

    name: str
    gt: Path
    lq: Path | None = None


def draw(path: Path, height: int, width: int, channels: int = 3) -> Path:
    """Write a smooth picture, another one for each name."""
    random = np.random.default_rng(sum(path.stem.encode()))
    waves = random.uniform(0.05, 0.3, (channels, 2))
    y, x = np.mgrid[:height, :width]
    planes = [np.sin(a * y + b * x + a) for a, b in waves]
    pixels = (127 + 120 * np.stack(planes, 2)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, Picture(pixels), fmt="png")
    return path


def drawn_set(folder: Path, channels: int = 3, count: int = 3) -> list[OnDisk]:
    """Pictures of sizes that are no multiples of anything."""
    names = [f"p{number}" for number in range(count)]
    return [
        OnDisk(name, draw(folder / f"{name}.png", 33 + 5 * i, 46 - 3 * i, channels))
        for i, name in enumerate(names)
    ]


def scored_set(
    model: Model,
    protocol: Protocol,
    pictures: Sequence[OnDisk],
    folder: Path,
    *,
    keep: bool = False,
    settings: Settings | None = None,
) -> tuple[Row, SetRun]:
    """Score pictures with a cache in a folder."""
    run = SetRun(
        as_contender(model),
        protocol,
        settings or Settings(),
        Cache(folder / "cache"),
        keep_in=folder / "pictures" if keep else None,
    )
    return run("drawn", pictures, lambda: None), run


def row_of(
    values: Sequence[float],
    *,
    model: str = "net",
    dataset: str = "Set5",
    measure: str = "psnr_y",
) -> Row:
    """A row whose pictures have these values of the first figure, and .9 of the second."""
    facts = ModelFacts(
        *(model, f"{model}.pth", model, "SwinIR", "SwinIR-M", 4, 11_900_199, 5e10, "fp32", "cpu")
    )
    protocol = protocol_of(3, "sr", 4)
    pictures = [
        PictureScore(
            *(f"p{i}", f"p{i}.png", f"{i}", "made", 40, 30),
            *({measure: value, "ssim_y": 0.9}, 0.5, None, 1),
        )
        for i, value in enumerate(values)
    ]
    return Row(facts, dataset, protocol, {"tile": 0}, len(pictures), pictures)
