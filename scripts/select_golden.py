"""Choose the published numbers that are committed for the tests, from the folder that has all.

Key lists are copied as they are. Of the small networks' numbers stay what the tests read: outputs,
and gradients of few elements. Of the full-size networks stay some outputs of every kind. Inputs
and weights are left out, because a formula makes them (`tests/golden_data.py`).

Usage: select_golden.py ../shared/golden tests/golden
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_OF_P = 1300  # elements of a stored gradient with respect to one parameter
KEPT = (
    "y",
    "gx",
    "seed",
    "max_abs_y",
    "rel_f32_err_gx",
    "rel_f32_err_gp",
    "category",
    "order",
    "min_top2_logit_gap",
)
OUTPUTS = (
    "swinir_classical_s64_x2",
    "swinir_light_x2",
    "swinir_real_m_x2",
    "swinir_real_l_x4",
    "swinir_denoise_gray",
    "swinir_jpeg_gray",
    "swinir_jpeg_color",
    "hit_sir_x2",
    "hit_sng_x2",
    "hit_srf_x2",
    "hat_x2",
    "srformer_light_x2",
    "srformer_x2",
    "cat_a_x2",
    "cat_r_x3",
    "cat_jpeg_gray",
    "cat_unet_denoise",
    "uformer_t",
    "drct_x2",
    "atd_light_x2",
    "atd_x2",
)

Arrays = dict[str, npt.NDArray[Any]]


def main() -> int:
    """Write the selection, replacing an earlier one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="folder with skeletons/, tiny/ and outputs/")
    parser.add_argument("target", type=Path, help="folder to write the same three into")
    asked = parser.parse_args()
    source: Path = asked.source
    target: Path = asked.target
    for name in ("skeletons", "tiny", "outputs"):
        shutil.rmtree(target / name, ignore_errors=True)
        (target / name).mkdir(parents=True)
    for path in sorted((source / "skeletons").glob("*.json.gz")):
        (target / "skeletons" / path.name).write_bytes(path.read_bytes())
    for path in sorted((source / "tiny").glob("*.npz")):
        write(target / "tiny" / path.name, tiny_selection(read(path)))
    for name in OUTPUTS:
        stored = read(source / "outputs" / f"{name}.npz")
        kept = {k: v for k, v in stored.items() if k in ("seed", "x_shape", "y", "max_abs_y")}
        write(target / "outputs" / f"{name}.npz", kept)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {size / 1e6:.2f} MB")
    return 0


def read(path: Path) -> Arrays:
    """All arrays of a file."""
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def write(path: Path, arrays: Arrays) -> None:
    """A file with these arrays, the same bytes every time."""
    # numpy's annotation takes the arrays for its own option
    save: Callable[..., None] = np.savez_compressed
    save(path, **arrays)


def tiny_selection(stored: Arrays) -> Arrays:
    """What the tests read of one small network.

    Raises:
        ValueError: an input is not the one that the formula makes from its seed and shape.
    """
    meta = json.loads(bytes(stored["meta"]).decode())
    kept: Arrays = {}
    for name, values in stored.items():
        kind, _, tag = name.partition("/")[0].rpartition("_")
        if kind == "x":
            seed = int(stored[f"seed_{tag}"])
            made = np.random.RandomState(seed).random_sample(values.shape).astype(np.float32)
            if not np.array_equal(made, values):
                raise ValueError(f"{meta['variant']}: {name} is not what seed {seed} gives")
            kept[f"shape_{tag}"] = np.asarray(values.shape)
        elif kind in KEPT or (kind == "gp" and values.size <= MOST_OF_P):
            kept[name] = values
    told = ("variant", "family", "class", "config", "repository", "commit", "file", "keys")
    text = json.dumps({name: meta[name] for name in told})
    kept["meta"] = np.frombuffer(text.encode(), dtype=np.uint8)
    return kept


if __name__ == "__main__":
    raise SystemExit(main())
