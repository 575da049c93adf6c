"""What tiles cost in quality: PSNR against ground truth, tiled and whole, over tile and tile_pad.

    python -m benchmarks.tiles MODEL.pth --gt Set14/HR --tile 64 128 --tile_pad 8 16 32

The low-quality side is made by the package's MATLAB-exact bicubic resize (or read with --lq). A
picture that one tile covers does not count. PSNR is on Y with crop_border = scale, over values
rounded to 8 bits, as papers report it. The table goes to a JSON file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe
from restore import imresize, load, psnr, upscale
from restore.image_io import read_picture
from restore.model import Model
from restore.upscaling.pixels import AnyArray
from restore.upscaling.tiling import plan

Setting = tuple[int, int, int]  # tile, tile_pad, align


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
    model: Model, images: Iterator[tuple[str, AnyArray]], settings: list[Setting]
) -> dict[Setting, list[dict[str, object]]]:
    """One row for each setting and picture that it cuts into more than one tile."""
    rows: dict[Setting, list[dict[str, object]]] = defaultdict(list)
    rule = model.rule
    for name, gt in images:
        lq = imresize(gt, 1 / model.scale)
        whole = psnr_y(upscale(lq, model, tile=0), gt, model.scale)
        for setting in settings:
            tile, pad, align = setting
            if len(plan(lq.shape[0], lq.shape[1], tile, pad, align)) == 1:
                continue
            model.rule = dataclasses.replace(rule, align=align)
            tiled = psnr_y(upscale(lq, model, tile=tile, tile_pad=pad), gt, model.scale)
            rows[setting].append(
                {
                    "picture": name,
                    "lq": list(lq.shape[:2]),
                    "whole_db": whole,
                    "tiled_db": tiled,
                }
            )
            model.rule = rule
        print(f"{name}: {whole:.3f} dB whole", file=sys.stderr, flush=True)
    return rows


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
    found = study(model, images, settings)
    table = []
    print(" tile  pad align pictures  whole dB  loss dB   worst")
    for (tile, pad, align), rows in found.items():
        losses = [float(r["whole_db"]) - float(r["tiled_db"]) for r in rows]  # type: ignore[arg-type]
        line = {
            "tile": tile,
            "tile_pad": pad,
            "align": align,
            "pictures": len(rows),
            "whole_db": float(np.mean([r["whole_db"] for r in rows])),  # type: ignore[arg-type]
            "mean_loss_db": float(np.mean(losses)),
            "worst_loss_db": max(losses),
            "rows": rows,
        }
        table.append(line)
        print(
            f"{tile:>5}{pad:>5}{align:>6}{len(rows):>9}{line['whole_db']:>10.3f}"
            f"{line['mean_loss_db']:>9.4f}{line['worst_loss_db']:>8.4f}"
        )
    head = {
        "date": date.today().isoformat(),
        "model": args.model.name,
        "variant": model.variant,
        "pictures": f"{args.gt.parent.name}/{args.gt.name}",
        "every": args.every,
        "mosaic": args.mosaic,
        "machine": describe(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({**head, "table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
