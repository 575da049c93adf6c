"""Whether the pictures of a validation can be scored, told before anything begins."""

from __future__ import annotations

from collections.abc import Mapping

from restore.datasets.validation import ValidationSet
from restore.errors import ImageError
from restore.metrics.similarity import WINDOW
from restore.training.dataset_options import DatasetOptions
from restore.training.options import MetricOptions, Options
from restore.training.typed_reading import Mistakes

Size = tuple[int, int]


def check_scorable(options: Options, sets: Mapping[str, ValidationSet]) -> None:
    """Look at the sizes of all pictures that are to be scored; only their headers are read.

    What cannot be read is left to the validation, which tells why.

    Args:
        options: of the run.
        sets: by the names of their sections.

    Raises:
        UsageError: a metric's crop_border leaves too little of a picture, or the two sides of a
            pair do not fit each other; with file, line, picture, sizes and what to do.
    """
    mistakes = Mistakes()
    for data in options.datasets.values():
        if data.phase != "train" and data.name in sets:
            sizes = _sizes(options, data, sets[data.name], mistakes)
            for name, metric in options.val.metrics.items():
                _check_border(data, name, metric, sizes, mistakes)
    mistakes.raise_any()


def _sizes(
    options: Options, data: DatasetOptions, pictures: ValidationSet, mistakes: Mistakes
) -> dict[str, Size]:
    """Rows and columns of the pictures by name, as far as they are known."""
    most = options.val.max_pictures or len(pictures)
    found, wrong = {}, list[str]()
    for index in range(min(most, len(pictures))):
        try:
            size = pictures.scored_size(index)
        except ImageError as error:
            wrong.append(str(error))
            continue
        if size is not None:
            found[pictures.name(index)] = size
    if wrong:
        others = f" (and {len(wrong) - 1} more pairs)" if len(wrong) > 1 else ""
        mistakes.add(
            data.where("dataroot_lq"),
            f"{wrong[0]}{others}; check scale, both folders and filename_tmpl. `restore data "
            "check` lists all such pairs",
        )
    return found


def _check_border(
    data: DatasetOptions,
    name: str,
    metric: MetricOptions,
    sizes: Mapping[str, Size],
    mistakes: Mistakes,
) -> None:
    border, least = metric.crop_border, WINDOW if metric.type == "ssim" else 1
    small = {path: size for path, size in sizes.items() if min(size) - 2 * border < least}
    if not small:
        return
    path, (rows, columns) = min(small.items(), key=lambda item: min(item[1]))
    others = f" (and of {len(small) - 1} more)" if len(small) > 1 else ""
    most = (min(rows, columns) - least) // 2
    fitting = f"{most} or less" if most else "0"
    lower = f"lower crop_border to {fitting}, or " if most >= 0 else ""
    mistakes.add(
        metric.where("crop_border"),
        f"metric {name!r}: crop_border is {border}, which leaves too little of {path}{others} in "
        f"datasets.{data.key}: it has {rows} x {columns} pixels, and {metric.type} needs "
        f"{least + 2 * border} x {least + 2 * border} with that border; {lower}leave such small "
        "pictures out of the set",
    )
