"""What half precision costs: PSNR against ground truth in float32, fp16 and bf16, and how large the
numbers inside a network get.

    python -m benchmarks.precision MODEL.pth --gt Set5/HR
    python -m benchmarks.precision swinir_builtin_x2 --gt Set5/HR --lq Set5/LR_bicubic/X2

Only trained weights say anything: random ones have no quality to lose and other magnitudes. The
low-quality side is made by the package's MATLAB-exact bicubic resize, or read with --lq (names may
end in x2, x3, x4). PSNR is on Y with crop_border = scale, from outputs that are not rounded: small
losses show then. Rows of other models, data and devices in the results file are kept, and the table
in docs/precision.md is written from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import describe
from restore import imresize, load, psnr
from restore.archs import ARCHS
from restore.devices import dtype_name
from restore.image_io import read_picture
from restore.model import Model
from restore.upscaling.pixels import AnyArray

RESULTS = Path(__file__).parent / "results" / "precision.json"
PAGE = Path(__file__).parents[1] / "docs" / "precision.md"
COSTS = Path(__file__).parents[1] / "restore" / "precision.json"  # that `--fast` reads
HALF = (torch.float16, torch.bfloat16)


class Largest:
    """The largest magnitude that any layer of a network gives, and which layer that was."""

    def __init__(self, net: nn.Module) -> None:
        self.value, self.layer = 0.0, ""
        for name, module in net.named_modules():
            if not list(module.children()):
                module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def see(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                value = output.abs().max().item()
                if value > self.value:
                    self.value, self.layer = value, name

        return see


def pairs(gt: Path, lq: Path | None, scale: int) -> Iterator[tuple[str, AnyArray, AnyArray]]:
    """Name, low-quality picture and ground truth, [H, W, 3] uint8 each."""
    for path in sorted(p for p in gt.iterdir() if p.suffix == ".png"):
        high = read_picture(path).pixels
        high = high if high.shape[2] == 3 else high.repeat(3, axis=2)
        h, w = (side - side % scale for side in high.shape[:2])
        high = np.ascontiguousarray(high[:h, :w])
        if lq is None:
            yield path.stem, imresize(high, 1 / scale), high
            continue
        names = (lq / f"{path.stem}x{scale}.png", lq / path.name)
        yield path.stem, read_picture(next(n for n in names if n.exists())).pixels, high


def measure(model: Model, images: Iterator[tuple[str, AnyArray, AnyArray]]) -> dict[str, Any]:
    """PSNR of each precision and picture, agreement with float32, and the largest activation."""
    largest = Largest(model.module)
    rows: list[dict[str, Any]] = []
    for name, low, high in images:
        x = torch.from_numpy(low.astype(np.float32) / 255).permute(2, 0, 1)[None]
        x = x.to(model.device)
        row: dict[str, Any] = {"picture": name}
        with torch.inference_mode():
            exact = model(x, dtype=torch.float32).float()
        row["fp32_db"] = score(exact, high, model.scale)
        for dtype in HALF:
            with torch.inference_mode():
                y = model(x, dtype=dtype).float()
            key = dtype_name(dtype)
            row[f"{key}_not_finite"] = int((~torch.isfinite(y)).sum())
            row[f"{key}_db"] = score(torch.nan_to_num(y), high, model.scale)
            row[f"{key}_off"] = (y - exact).abs().max().item()
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return {
        "largest_activation": largest.value,
        "largest_layer": largest.layer,
        **{
            f"{key}_db": float(np.mean([row[f"{key}_db"] for row in rows]))
            for key in ("fp32", *map(dtype_name, HALF))
        },
        "rows": rows,
    }


def score(y: Tensor, high: AnyArray, scale: int) -> float:
    """PSNR on Y, in dB, of an output that is clamped but not rounded."""
    got = y[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy().astype(np.float32)
    truth = high.astype(np.float32) / 255
    return psnr(np.ascontiguousarray(got), truth, crop_border=scale, y_channel=True)


def table(results: list[dict[str, Any]]) -> str:
    """A row for each measured model, and one for each family without any."""
    lines = [
        "| family | model (weights) | device | float32 | fp16 | bf16 | largest activation "
        "| layer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family in dict.fromkeys(spec.family for spec in ARCHS):
        rows = [r for r in results if r["family"] == family]
        for row in rows:
            lost = any(picture["fp16_not_finite"] for picture in row["rows"])
            fp16 = "not finite" if lost else f"{row['fp16_db'] - row['fp32_db']:+.4f}"
            cells = [
                family,
                f"{row['variant']} ({row['weights']})",
                row["device"],
                f"{row['fp32_db']:.3f} dB",
                fp16,
                f"{row['bf16_db'] - row['fp32_db']:+.4f}",
                f"{row['largest_activation']:.2g}",
                f"`{row['largest_layer']}`",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        if not rows:
            lines.append(f"| {family} | not measured | | | | | | |")
    return "\n".join(lines)


def write_page(results: list[dict[str, Any]], page: Path = PAGE) -> None:
    """Put the table between the marks of the page."""
    begin, end = "<!-- table: python -m benchmarks.precision -->\n", "\n<!-- end of table -->"
    text = page.read_text(encoding="utf-8")
    before, after = text.split(begin)[0], text.split(end)[1]
    page.write_text(f"{before}{begin}{table(results)}{end}{after}", encoding="utf-8")


def write_costs(results: list[dict[str, Any]], path: Path = COSTS) -> None:
    """Put what the package itself needs into its file."""
    keys = ("family", "model", "weights", "data", "device", "fp32_db", "bf16_db")
    rows = [{key: row[key] for key in keys} for row in results]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure one model and put its row into the results file and the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="weight file, or name of a built-in model")
    parser.add_argument("--gt", type=Path, required=True, help="folder of ground truth PNGs")
    parser.add_argument("--lq", type=Path, help="folder of low-quality PNGs; made if not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--weights", default="official", help="whose weights they are, for the table"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file (JSON)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.model, device=args.device)
    found = {
        "model": Path(args.model).name,
        "variant": model.variant,
        "arch": model.arch,
        "family": model.spec.family,
        "weights": args.weights,
        "data": f"{args.gt.parent.name}/{args.gt.name}",
        "device": model.device.type,
        "date": date.today().isoformat(),
        "machine": describe(),
        **measure(model, pairs(args.gt, args.lq, model.scale)),
    }
    before = json.loads(args.out.read_text()) if args.out.exists() else []
    same = (found["model"], found["device"], found["data"])
    others = [r for r in before if (r["model"], r["device"], r["data"]) != same]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    results = [*others, found]
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    if args.out == RESULTS:
        write_page(results)
        write_costs(results)
    print({key: value for key, value in found.items() if key not in ("rows", "machine")})


if __name__ == "__main__":
    main()
