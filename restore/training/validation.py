"""Scores of a model over sets of pictures, for training and for `restore test`.

PSNR and SSIM are those of restore.metrics: results are clipped and rounded to 8 bits before they
are counted, as BasicSR counts them.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.atomic import atomic_output, writing
from restore.errors import ImageError, UsageError
from restore.image_io import Picture, write_picture
from restore.metrics import psnr, ssim
from restore.metrics.perceptual import Perceptual, perceptual
from restore.model import Model
from restore.training.distributed import Processes
from restore.training.options import MetricOptions, Options
from restore.training.whole_pictures import CHOP, How, restored_batch

log = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]


class PairOfPictures(Protocol):
    """A picture to restore, and perhaps what it was."""

    @property
    def lq(self) -> Tensor:
        """[1, C, h, w] in 0..1."""

    @property
    def gt(self) -> Tensor | None:
        """[1, C, h * s, w * s]."""

    @property
    def lq_path(self) -> str:
        """Its name."""


class PictureSet(Protocol):
    """Whole pictures to restore, one at a time."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int) -> PairOfPictures:
        """One of them."""


def how_of(options: Options) -> How:
    """What an option file says of it."""
    tile, pad = CHOP if options.val.use_chop else (0, None)
    if options.tile is not None:
        tile, pad = options.tile.tile_size, options.tile.tile_pad
    ensemble = options.val.self_ensemble or options.kind.self_ensemble
    return How(tile, pad, ensemble, "reflect" if tile else options.kind.padding)


@dataclass
class Scores:
    """What a set of pictures scored.

    Attributes:
        name: of the set.
        pictures: name of each picture to its scores by metric.
    """

    name: str
    pictures: dict[str, dict[str, float]] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """The mean of each metric over the pictures that have it."""
        names = {metric: None for scores in self.pictures.values() for metric in scores}
        means = {}
        for metric in names:
            values = [scores[metric] for scores in self.pictures.values() if metric in scores]
            means[metric] = math.fsum(values) / len(values)
        return means


def exactly(metric: MetricOptions, value: float) -> str:
    """A score for files: PSNR, which is in dB, with 6 decimals, others with 8."""
    return f"{value:.{6 if metric.type == 'psnr' else 8}f}"


def briefly(metric: MetricOptions, value: float) -> str:
    """A score for people: PSNR with 4 decimals, others with 6."""
    return f"{value:.{4 if metric.type == 'psnr' else 6}f}"


def restored(model: Model, lq: Tensor, how: How) -> Tensor:
    """Restore one picture: [1, C, h, w] in 0..1 to [C, h * s, w * s] on the CPU, not clamped."""
    # not inference_mode: what networks keep between calls has to serve training too
    with torch.no_grad():
        return restored_batch(model, lq.to(model.device), how)[0].float().cpu()


def as_bytes(picture: Tensor) -> Bytes:
    """[C, H, W] in about 0..1 to [H, W, C] in 0..255, clipped and rounded."""
    scaled = (picture.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(1, 2, 0).numpy())


class Metrics:
    """The metrics of an option file; each takes results and truths of 8 bits.

    Args:
        options: name to metric.

    Raises:
        UsageError: one needs what is not at hand.
    """

    def __init__(self, options: Mapping[str, MetricOptions]) -> None:
        self.options = options
        self._perceptual: dict[str, Perceptual] = {}
        for name, metric in options.items():
            if metric.type == "niqe" or metric.type == "lpips":
                try:
                    self._perceptual[metric.type] = perceptual(metric.type)
                except UsageError as error:
                    where = metric.where("type")
                    raise UsageError(f"{where}: metric {name!r}: {error}") from error

    def __call__(self, result: Bytes, truth: Bytes) -> dict[str, float]:
        """[H, W, C] twice to a number for each metric."""
        if result.shape != truth.shape:
            raise UsageError(
                f"the result is {result.shape} and the truth {truth.shape}; check scale and folders"
            )
        return {name: self._one(options, result, truth) for name, options in self.options.items()}

    def _one(self, options: MetricOptions, result: Bytes, truth: Bytes) -> float:
        border = options.crop_border
        if options.type in self._perceptual:
            return self._perceptual[options.type](result, truth, crop_border=border)
        measure = psnr if options.type == "psnr" else ssim
        return measure(result, truth, crop_border=border, y_channel=options.test_y_channel)


def validate(
    model: Model,
    name: str,
    pictures: PictureSet,
    metrics: Metrics,
    how: How,
    *,
    processes: Processes,
    save_to: Callable[[str], Path] | None = None,
    seen: Callable[[str], None] | None = None,
    most: int = 0,
) -> Scores:
    """Restore pictures one after the other and score them.

    All processes call it, and each takes its share of the pictures; where parameters are spread,
    all restore all of them together.

    Args:
        model: in eval mode.
        name: of the set.
        pictures: the set.
        metrics: what to score with.
        how: tiles, self-ensemble, padding.
        processes: this one among those of the run.
        save_to: from a picture's name to the PNG to write; None: none is written.
        seen: called with the name of each picture that is done.
        most: only the first so many pictures; 0: all.

    Returns:
        The scores of all pictures, to every process.

    Raises:
        ImageError, OutputError: a picture cannot be restored, scored or written.
    """
    count = min(len(pictures), most) if most else len(pictures)
    step, first = (1, 0) if processes.is_sharded else (processes.count, processes.rank)
    found: dict[int, tuple[str, dict[str, float]]] = {}
    writes = save_to is not None and (processes.is_first or not processes.is_sharded)
    target = save_to if writes else None
    together = processes.is_sharded  # all restore a picture, or none
    with processes.agreed(not together):
        for index in range(first, count, step):
            with processes.agreed(together):
                item = pictures[index]
            with processes.agreed(together):
                found[index] = item.lq_path, _score(model, name, item, metrics, how, target)
            if seen is not None:
                seen(item.lq_path)
    everything: dict[int, tuple[str, dict[str, float]]] = {}
    for share in processes.gather(found):
        everything.update(share)
    scores = Scores(name)
    for _, (source, values) in sorted(everything.items()):
        stem = Path(source).stem
        scores.pictures[source if stem in scores.pictures else stem] = values
    return scores


def _score(
    model: Model,
    name: str,
    item: PairOfPictures,
    metrics: Metrics,
    how: How,
    save_to: Callable[[str], Path] | None,
) -> dict[str, float]:
    """Restore one picture, score it, and write it where it is to be written."""
    try:
        result = as_bytes(restored(model, item.lq, how))
        values = {} if item.gt is None else metrics(result, as_bytes(item.gt[0]))
    except UsageError as error:
        raise ImageError(f"{name}: {item.lq_path}: {error}") from error
    if save_to is not None:
        path = save_to(Path(item.lq_path).stem)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, Picture(result), fmt="png")
    return values


def write_scores(
    path: Path, scores: Sequence[Scores], options: Mapping[str, MetricOptions]
) -> None:
    """Write every picture's scores as CSV, with the means last; OutputError if it cannot.

    Args:
        path: of the file.
        scores: of each set.
        options: the metrics by name.
    """
    metrics = list(dict.fromkeys(name for each in scores for name in each.means()))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "picture", *metrics])
    for each in scores:
        rows = [*each.pictures.items(), ("mean", each.means())]
        for name, values in rows:
            cells = [exactly(options[m], values[m]) if m in values else "" for m in metrics]
            writer.writerow([each.name, name, *cells])
    with atomic_output(path) as file, writing(path):
        file.write(text.getvalue().encode())


@dataclass
class Best:
    """The best means so far, by set and metric."""

    options: Mapping[str, MetricOptions]
    found: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)

    def see(self, scores: Scores, iteration: int) -> None:
        """Take the scores of a validation; of equal ones the later counts, as in BasicSR."""
        best = self.found.setdefault(scores.name, {})
        for metric, value in scores.means().items():
            if metric not in best or self._is_better(metric, value, best[metric][0]):
                best[metric] = (value, iteration)

    def kind(self, metric: str) -> MetricOptions:
        """The metric of a name; of one that only the state of a resumed run knows, a guess."""
        return self.options.get(metric, MetricOptions(type="ssim"))

    def _is_better(self, metric: str, value: float, other: float) -> bool:
        options = self.options[metric]
        higher = options.type in ("psnr", "ssim")
        if options.better is not None:
            higher = options.better == "higher"
        return value >= other if higher else value <= other
