"""`restore test`: the scores and pictures of a trained network over sets of pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from restore.datasets.build import validation_set
from restore.datasets.validation import ValidationSet
from restore.errors import UsageError
from restore.model import Model
from restore.training.building import build_generator, holds_another, load_weights
from restore.training.distributed import Processes
from restore.training.experiment import results_folder
from restore.training.options import Options
from restore.training.scorable import check_scorable
from restore.training.validation import (
    Metrics,
    PictureSet,
    Scores,
    briefly,
    how_of,
    validate,
    write_scores,
)

log = logging.getLogger("restore.training")


def test(
    options: Options, *, root: Path | None = None, tell: Callable[[str], None] = log.info
) -> list[Scores]:
    """Score every test set of an option file.

    Writes results/<name>: scores.csv with every picture's, the log, and where save_img says so
    visualization/<set>/<picture>_<suffix>.png.

    Args:
        options: a whole option file; path: pretrain_network_g names the weights.
        root: where results/ stands; None: the current folder.
        tell: is told which weights of the file are scored.

    Raises:
        UsageError: options that cannot be obeyed.
        CheckpointError: the weights cannot be read or do not fit.
        ImageError, OutputError: a picture cannot be read or written.
    """
    model, metrics, sets = prepared(options, tell)
    folder = results_folder(options.name, root or Path())
    found = []
    for name, pictures in sets.items():
        begun = time.perf_counter()
        found.append(_scored(options, model, name, pictures, metrics, folder))
        means = found[-1].means().items()
        metrics_of = options.val.metrics
        told = "  ".join(f"{name} {briefly(metrics_of[name], value)}" for name, value in means)
        log.info("%s: %s  (%.1f s)", name, told, time.perf_counter() - begun)
    write_scores(folder / "scores.csv", found, options.val.metrics)
    return found


def prepared(
    options: Options, tell: Callable[[str], None]
) -> tuple[Model, Metrics, dict[str, ValidationSet]]:
    """The network with its weights, the metrics and the sets by name; nothing is written.

    Args:
        options, tell: see `test`.

    Raises:
        UsageError, CheckpointError: see `test`.
    """
    sections = options.datasets_of("test") or options.datasets_of("val")
    if not sections:
        raise UsageError(f"{options.file}: datasets has no section for a test; add test_1")
    model = _trained(options, tell)
    metrics = Metrics(options.val.metrics)
    sets = {section.name: validation_set(section) for section in sections}
    check_scorable(options, sets)
    return model, metrics, sets


def _trained(options: Options, tell: Callable[[str], None]) -> Model:
    """The network with the weights that the file names, on the device, in eval mode."""
    path = options.path
    if path.pretrain_network_g is None:
        raise UsageError(
            f"{path.where() or options.file}: a test needs weights; name them in path: "
            "pretrain_network_g"
        )
    model = build_generator(options.network_g, options.scale)
    file, asked = path.pretrain_network_g, path.param_key_g
    key = load_weights(model.module, file, asked, strict=path.strict_load_g)
    tell(f"weights: {key or 'the only ones'} of {file}")
    averaged = "params_ema"
    if key == "params" and not path.given("param_key_g") and holds_another(file, key, averaged):
        tell(
            f"note: it holds {averaged} too, which differ: path: param_key_g: {averaged} scores "
            "those"
        )
    model.module.eval()
    return model.to("cpu" if options.num_gpu == 0 else "auto")


def _scored(
    options: Options,
    model: Model,
    name: str,
    pictures: PictureSet,
    metrics: Metrics,
    folder: Path,
) -> Scores:
    """The scores of one set; its pictures are written where the file says so."""
    val = options.val
    target = folder / "visualization" / name
    ending = val.suffix or options.name
    count = min(len(pictures), val.max_pictures or len(pictures))
    with tqdm(total=count, desc=name, unit="picture", disable=None, leave=False) as bar:
        return validate(
            model,
            name,
            pictures,
            metrics,
            how_of(options),
            processes=Processes(model.device),
            save_to=(lambda picture: target / f"{picture}_{ending}.png") if val.save_img else None,
            seen=lambda _: _advance(bar),
            most=val.max_pictures,
        )


def _advance(bar: tqdm[Any]) -> None:
    bar.update()
