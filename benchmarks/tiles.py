"""What tiles cost in quality: PSNR against ground truth, tiled and whole, over tile and tile_pad.

    python -m benchmarks.tiles MODEL.pth --gt Set14/HR --tile 64 128 --tile_pad 8 16 32

The low-quality side is made by the package's MATLAB-exact bicubic resize (or read with --lq). A
picture that one tile covers does not count. PSNR is on Y with crop_border = scale, over values
rounded to 8 bits, as papers report it. The table goes to a JSON file, written anew after every
picture; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe
from restore import imresize, load, psnr, upscale
from restore.atomic import atomic_output
from restore.image_io import read_picture
from restore.model import Model
from restore.upscaling.pixels import AnyArray
from restore.upscaling.tiling import plan

Setting = tuple[int, int, int]  # tile, tile_pad, align
Rows = dict[Setting, list[dict[str, Any]]]


def pairs(folder: Path, scale: int, every: int, mosaic: int) -> Iterator[tuple[str, AnyArray]]:
    """Name and ground truth [H, W, 3], cropped to a multiple of the scale.

    Args:
        folder: pictures, in the order of their names.
        scale: of the model.
        every: take each so-manieth picture.
        mosaic: 0, or join so many by so many pictures to one large one.
    """
    files = sorted(p for p in folder.iterdir() if p.suffix == ".png")[::every]
    shapes = []
    for path in files:
        gt = read_picture(path).pixels
        gt = gt if gt.shape[2] == 3 else gt.repeat(3, axis=2)
        h, w = (side - side % scale for side in gt.shape[:2])
        if not mosaic:
            yield path.stem, gt[:h, :w]
            continue
        shapes.append(gt[:h, :w])
        if len(shapes) == mosaic**2:
            h, w = (min(s.shape[axis] for s in shapes) for axis in (0, 1))
            rows = [
                np.concatenate([s[:h, :w] for s in shapes[i * mosaic : (i + 1) * mosaic]], axis=1)
                for i in range(mosaic)
            ]
            yield f"mosaic {mosaic} x {mosaic}", np.concatenate(rows)
            return


def study(
    model: Model, images: Iterator[tuple[str, AnyArray]], settings: list[Setting], done: Rows
) -> Iterator[Rows]:
    """All rows so far, after every picture that is not yet in `done`.

    There is one row for each setting and picture that it cuts into more than one tile.
    """
    rule = model.rule
    seen = {row["picture"] for rows in done.values() for row in rows}
    for name, gt in images:
        if name in seen:
            continue
        lq = imresize(gt, 1 / model.scale)
        whole = psnr_y(upscale(lq, model, tile=0), gt, model.scale)
        for setting in settings:
            tile, pad, align = setting
            if len(plan(lq.shape[0], lq.shape[1], tile, pad, align)) == 1:
                continue
            model.rule = dataclasses.replace(rule, align=align)
            tiled = psnr_y(upscale(lq, model, tile=tile, tile_pad=pad), gt, model.scale)
            model.rule = rule
            row = {
                "picture": name,
                "lq": list(lq.shape[:2]),
                "whole_db": whole,
                "tiled_db": tiled,
            }
            done.setdefault(setting, []).append(row)
        print(f"{name}: {whole:.3f} dB whole", file=sys.stderr, flush=True)
        yield done


def summary(found: Rows) -> list[dict[str, Any]]:
    """One line for each setting, with the rows it stands for."""
    table = []
    for (tile, pad, align), rows in found.items():
        losses = [row["whole_db"] - row["tiled_db"] for row in rows]
        line = {
            "tile": tile,
            "tile_pad": pad,
            "align": align,
            "pictures": len(rows),
            "whole_db": float(np.mean([row["whole_db"] for row in rows])),
            "mean_loss_db": float(np.mean(losses)),
            "worst_loss_db": max(losses),
            "rows": rows,
        }
        table.append(line)
    return table


def resumed(path: Path, head: dict[str, Any]) -> Rows:
    """The rows of an earlier run of the same study; none where there was no such run."""
    if not path.exists():
        return {}
    before = json.loads(path.read_text())
    same = ("model", "variant", "pictures", "every", "mosaic")
    if any(before.get(key) != head[key] for key in same):
        raise SystemExit(f"{path} holds another study; name another --out, or remove it")
    return {(t["tile"], t["tile_pad"], t["align"]): t["rows"] for t in before["table"]}


def psnr_y(result: AnyArray, gt: AnyArray, scale: int) -> float:
    """PSNR on Y with crop_border = scale, in dB."""
    return psnr(result, np.ascontiguousarray(gt), crop_border=scale, y_channel=True)


def main() -> None:
    """Measure, print the table of mean losses and write everything to a file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="weight file")
    parser.add_argument("--gt", type=Path, required=True, help="folder of ground truth PNGs")
    parser.add_argument("--tile", nargs="+", type=int, default=[64, 128, 192])
    parser.add_argument("--tile_pad", nargs="+", type=int, help="default: the model's own")
    parser.add_argument("--align", nargs="+", type=int, help="default: the model's own")
    parser.add_argument("--every", type=int, default=1, help="take each so-manieth picture")
    parser.add_argument("--mosaic", type=int, default=0, help="join N x N pictures to one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load(args.model, device="cpu")
    settings = [
        (tile, pad, align)
        for tile in args.tile
        for align in args.align or [model.align]
        for pad in args.tile_pad or [model.halo]
    ]
    images = pairs(args.gt, model.scale, args.every, args.mosaic)
    head = {
        "date": date.today().isoformat(),
        "model": args.model.name,
        "variant": model.variant,
        "pictures": f"{args.gt.parent.name}/{args.gt.name}",
        "every": args.every,
        "mosaic": args.mosaic,
        "machine": describe(),
    }
    found = resumed(args.out, head)
    for rows in study(model, images, settings, found):
        with atomic_output(args.out) as file:
            file.write((json.dumps({**head, "table": summary(rows)}, indent=1) + "\n").encode())
    print(" tile  pad align pictures  whole dB  loss dB   worst")
    for line in summary(found):
        print(
            f"{line['tile']:>5}{line['tile_pad']:>5}{line['align']:>6}{line['pictures']:>9}"
            f"{line['whole_db']:>10.3f}{line['mean_loss_db']:>9.4f}{line['worst_loss_db']:>8.4f}"
        )


if __name__ == "__main__":
    main()
