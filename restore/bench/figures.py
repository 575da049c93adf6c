"""Figures that need more than pictures: those that were published, and measures with weights."""

from __future__ import annotations

from collections.abc import Sequence

from restore.bench.published import model_keys, published
from restore.bench.results import Row, compared
from restore.bench.scores import Perceptual
from restore.errors import UsageError
from restore.model import Model


def perceptual_of(names: Sequence[str], device: str) -> Perceptual:
    """The measures of these names.

    Raises:
        UsageError: the weights of one are not at hand.
    """
    if names:
        raise UsageError("perceptual measures are not here yet")
    return {}


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
