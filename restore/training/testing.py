"""`restore test`: the scores and pictures of a trained network over sets of pictures."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from restore.atomic import writing
from restore.datasets.build import validation_set
from restore.devices import resolve_device
from restore.errors import UsageError
from restore.training.building import build_generator, load_weights
from restore.training.distributed import Processes
from restore.training.experiment import results_folder
from restore.training.options import Options
from restore.training.validation import Metrics, Scores, how_of, validate, write_scores

log = logging.getLogger("restore.training")


def test(options: Options, *, root: Path | None = None) -> list[Scores]:
    """Score every test set of an option file.

    Writes results/<name>: scores.csv with every picture's, the log, and where save_img says so
    visualization/<set>/<picture>_<suffix>.png.

    Args:
        options: a whole option file; path: pretrain_network_g names the weights.
        root: where results/ stands; None: the current folder.

    Raises:
        UsageError: options that cannot be obeyed.
        CheckpointError: the weights cannot be read or do not fit.
        ImageError, OutputError: a picture cannot be read or written.
    """
    sets = options.datasets_of("test") or options.datasets_of("val")
    if not sets:
        raise UsageError(f"{options.file}: datasets has no section for a test; add test_1")
    path = options.path
    if path.pretrain_network_g is None:
        raise UsageError(
            f"{path.where() or options.file}: a test needs weights; name them in path: "
            "pretrain_network_g"
        )
    model = build_generator(options.network_g, options.scale)
    load_weights(model.module, path.pretrain_network_g, path.param_key_g, strict=path.strict_load_g)
    model.module.eval()
    alone = Processes(resolve_device("cpu" if options.num_gpu == 0 else "auto"))
    model.to(alone.device)
    metrics, how, val = Metrics(options.val.metrics), how_of(options), options.val
    data = [(each.name, validation_set(each)) for each in sets]
    folder = results_folder(options.name, root or Path())
    found = []
    for name, pictures in data:
        bar = tqdm(total=len(pictures), desc=name, unit="picture", disable=None, leave=False)
        begun = time.perf_counter()

        def target(picture: str, name: str = name) -> Path:
            ending = val.suffix or options.name
            return folder / "visualization" / name / f"{picture}_{ending}.png"

        def seen(_: str, bar: Any = bar) -> None:
            bar.update()

        with bar:
            scores = validate(
                model,
                name,
                pictures,
                metrics,
                how,
                processes=alone,
                save_to=target if val.save_img else None,
                seen=seen,
                most=val.max_pictures,
            )
        told = "  ".join(f"{metric} {value:.4f}" for metric, value in scores.means().items())
        log.info("%s: %s  (%.1f s)", name, told, time.perf_counter() - begun)
        found.append(scores)
    with writing(folder):
        write_scores(folder / "scores.csv", found)
    return found
