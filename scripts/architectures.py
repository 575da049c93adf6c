"""Write what the registry knows of every architecture and published model.

python scripts/architectures.py            write docs/architectures.md and what `restore info`
                                           shows without a file, restore/architectures.json
python scripts/architectures.py --check    exit 1 where they are not what this would write
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from restore.archs import ARCHS  # noqa: E402
from restore.costs import natural_side, parameters_and_multiply_adds  # noqa: E402
from restore.official import OfficialModel, official_models  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
DATA = ROOT / "restore" / "architectures.json"
HEAD = """\
# Architectures

Written by `python scripts/architectures.py` from the registry (`archs/__init__.py`) and the list of
published models (`restore/official.yml`); do not edit it by hand. How to add one is in
[adding-an-architecture.md](adding-an-architecture.md). `restore info` without a file prints the
short form, and with a weight file what that file is.

"Multiply-adds" are those of convolutions, linear layers and attention products for one input
pixel, as our networks compute them, counted by PyTorch's flop counter on a square image of the
given side. "Padded to" is what `restore.Model` grows an image to before the network and crops after
it; networks that list 1 pad by themselves. "Tile grid" and "tile_pad" are what tiled inference
starts from, in input pixels. The licence is that of the official weights; the code here is
Apache-2.0 throughout.
"""


def main() -> int:
    """Write or check both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only tell whether they are current")
    only_check = parser.parse_args().check
    rows = table()
    wanted = {PAGE: page(rows), DATA: json.dumps(rows, indent=1, ensure_ascii=False) + "\n"}
    stale = [
        path
        for path, text in wanted.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if only_check:
            print(f"{path.relative_to(ROOT)} is out of date; run python scripts/architectures.py")
        else:
            path.write_text(wanted[path], encoding="utf-8")
    return 1 if only_check and stale else 0


def table() -> list[dict[str, Any]]:
    """A row for each published configuration, its scales together."""
    return [_row(list(group)) for _, group in itertools.groupby(official_models(), key=_row_key)]


def _row_key(model: OfficialModel) -> tuple[object, ...]:
    config = {**model.config, "upscale": 0}
    return model.spec.name, repr(sorted(config.items())), model.task, model.data


def _row(models: list[OfficialModel]) -> dict[str, Any]:
    first = models[0]
    rule = first.spec.input_rule(first.config)
    scales = [f"x{model.scale}" for model in models]
    name = first.variant
    if len(models) > 1:
        name = first.variant.replace(scales[0], ", ".join(scales))
    counted = [parameters_and_multiply_adds(model.spec, model.config) for model in models]
    return {
        "family": first.spec.family,
        "arch": first.spec.name,
        "model": name,
        "task": first.task,
        "parameters": [parameters for parameters, _ in counted],
        "multiply_adds_per_pixel": [round(adds) for _, adds in counted],
        "counted_on_side": natural_side(first.spec, first.config),
        "windows": first.spec.windows(first.config),
        "padded_to": rule.multiple,
        "tile_grid": rule.align,
        "tile_pad": rule.halo,
        "data": first.data,
        "files": [name for model in models for name in model.files],
        "licence": first.spec.licence,
        "paper": first.spec.paper,
    }


def page(rows: list[dict[str, Any]]) -> str:
    """The whole page."""
    families = dict.fromkeys(spec.family for spec in ARCHS)
    return HEAD + "".join(
        _section(family, [row for row in rows if row["family"] == family]) for family in families
    )


def _section(family: str, rows: list[dict[str, Any]]) -> str:
    names = ", ".join(f"`{name}`" for name in dict.fromkeys(row["arch"] for row in rows))
    paper = rows[0]["paper"]
    link = f"[{paper}](https://arxiv.org/abs/{paper.removeprefix('arXiv:')})"
    lines = [
        f"\n## {family}\n",
        f"`type:` {names}. Paper: {link}. Official weights: {rows[0]['licence']}.\n",
        "| model | task | parameters, million | multiply-adds, thousand (side) | windows | "
        "padded to | tile grid, tile_pad | trained on | official files |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["model"],
            row["task"],
            " / ".join(f"{n / 1e6:.2f}" for n in row["parameters"]),
            " / ".join(f"{n / 1e3:,.0f}" for n in row["multiply_adds_per_pixel"])
            + f" ({row['counted_on_side']})",
            row["windows"],
            str(row["padded_to"]),
            f"{row['tile_grid']}, {row['tile_pad']}",
            row["data"],
            "<br>".join(f"`{name}`" for name in row["files"]) or "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
