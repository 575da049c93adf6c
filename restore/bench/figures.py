"""Figures that need more than pictures: those that were published, and measures with weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from restore.bench.protocols import Measure
from restore.bench.published import model_keys, published
from restore.bench.results import Row, compared
from restore.bench.scores import Perceptual
from restore.devices import resolve_device
from restore.model import Model

_FIXED_SIZE = (224, 224, 3)  # NIQE wants two patches of 96 pixels each way


def perceptual_of(names: Sequence[Measure], device: str) -> dict[Measure, Perceptual]:
    """The measures of these names.

    Raises:
        UsageError: the weights of one are not at hand.
        CheckpointError: they cannot be read.
    """
    if not names:
        return {}
    from restore.metrics.perceptual import PerceptualName, perceptual

    on = resolve_device(device)
    return {name: perceptual(cast("PerceptualName", name), device=on) for name in names}


def fingerprints(measures: Mapping[Measure, Perceptual]) -> str:
    """What each measure says of a fixed pair of pictures: with other weights it says another."""
    random = np.random.default_rng(0)
    truth, other = random.integers(0, 256, (2, *_FIXED_SIZE), np.uint8)
    mixed = (truth.astype(np.uint16) * 3 // 4 + other // 4).astype(np.uint8)
    return "; ".join(
        f"{name} {measure(mixed, truth, crop_border=0):.9g}" for name, measure in measures.items()
    )


def add_published(row: Row, model: Model) -> None:
    """Put beside the means what was published for them, where all pictures are scored.

    Nothing was published for averages over flips, for the other way to count gray pictures, and
    for networks whose file and configuration several checkpoints share.
    """
    row.published.clear()
    if not row.is_whole or row.settings["tta"] or row.protocol.gray != "rgb":
        return
    keys = model_keys(row.model.source, model.spec, model.config)
    for figure in row.protocol.figures:
        found = published(keys, row.dataset, row.protocol.level, figure.key)
        if found is not None:
            mean = row.mean(figure)
            row.published[figure.key] = compared(
                figure, mean, found.value, found.source, found.decimals
            )
