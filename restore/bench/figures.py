"""Figures that need more than pictures: those that were published, and measures with weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from restore.bench.protocols import Measure
from restore.bench.published import is_misnamed, model_keys, published
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


def add_published(row: Row, model: Model, dataset: str, unlike: str) -> None:
    """Put beside the means what was published for them, else say in the row why nothing is.

    Args:
        row: scored.
        model: of it.
        dataset: the set's name in papers.
        unlike: why its pictures are not those of the papers, see `sets.Verdict`; "" where they are.
    """
    row.published.clear()
    source = row.model.source
    keys = model_keys(source, model.spec, model.config)
    found = {
        figure: one
        for figure in row.protocol.figures
        if (one := published(keys, dataset, row.protocol.level, figure.key)) is not None
    }
    if is_misnamed(source, model.spec, model.config):
        row.unpublished = f"{source} has a name that its authors gave to another network"
    elif not found:
        row.unpublished = "no figure of it was published, as far as is known here"
        return
    else:
        row.unpublished = _not_comparable(row) or unlike
    if row.unpublished:
        row.notes.append(
            f"{row.model.name}, {row.dataset} {row.protocol.level_name}: nothing published stands "
            f"beside it: {row.unpublished}"
        )
        return
    for figure, one in found.items():
        row.published[figure.key] = compared(
            figure, row.mean(figure), one.value, one.source, one.decimals
        )


def _not_comparable(row: Row) -> str:
    """Why nothing published is of what was computed; "" where it is."""
    if not row.is_whole:
        return f"{len(row.pictures)} of {row.count} pictures are scored"
    if row.settings["tta"]:
        return "published figures are without averages over flips and turns"
    if row.protocol.gray != "rgb":
        return "published figures count gray pictures as three equal channels"
    return ""
