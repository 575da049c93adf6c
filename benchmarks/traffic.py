"""What a block moves through memory, before and after fusing; draws docs/images/block_traffic.svg.

    python -m benchmarks.traffic                       # SwinIR-M's shifted block in bf16
    python -m benchmarks.traffic --network SwinIR-S

Every operation that is no view reads its tensors and writes its results once: their bytes, over the
pixels of the map, are counted on tensors without data, as on an NVIDIA GPU, so that none is needed.
Triton has to be installed, as it is what the operations on the right are made of.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.eager_blocks import Stored
from benchmarks.eager_groups import run_block
from benchmarks.gpu.cases import NETWORKS
from benchmarks.gpu.subjects import only
from restore.archs._swin import AttentionBlock
from restore.kernels import dispatch

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "block_traffic.svg"
SIDE = 256  # of the map in the figure, in pixels
COPIES = {"clone": "copy", "_to_copy": "copy", "cat": "copy", "roll": "roll"}
WORDS = {
    "native_layer_norm": "layer norm",
    "addmm": "linear layer",
    "mm": "linear layer",
    "bmm": "product",
    "_softmax": "softmax",
    "index": "bias lookup",
    "add": "add",
    "mul": "scale",
    "gelu": "GELU",
    "convolution": "convolution",
    "_scaled_dot_product_efficient_attention": "fused attention",
    "_scaled_dot_product_flash_attention": "fused attention",
    **COPIES,
}
# Maps that an operation of ours writes and reads again, beside what goes in and comes out. Its
# kernel finds them in the cache; they are counted all the same.
WITHIN = {"window_attention_branch": 2}
Operation = tuple[str, float]  # in words, bytes for a pixel of the map


class _Counter(TorchDispatchMode):
    """Notes the bytes that every operation reads and writes."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        views = any(r.alias_info is not None for r in func._schema.returns)
        name = func._schema.name.split("::")[1]
        if not views and name != "_unsafe_view":
            tensors = [t for t in tree_leaves((args, kwargs, results)) if isinstance(t, Tensor)]
            moved = sum(map(_bytes, tensors))
            ours = func.namespace == "restore"
            if ours and name in WITHIN:
                moved += WITHIN[name] * _bytes(tensors[0])
            label = name.replace("_", " ") if ours else WORDS.get(name, name)
            self.operations.append((label, moved / self.pixels))
        return results


def _bytes(x: Tensor) -> int:
    """Of the numbers in memory that a tensor shows: an expanded side counts once."""
    count = 1
    for side, stride in zip(x.shape, x.stride(), strict=True):
        count *= side if stride else 1
    return count * x.element_size()


def counted(call: Callable[[], Tensor], pixels: int) -> list[Operation]:
    """The operations of a call in their order; what only a first call makes is left out."""
    call()
    counter = _Counter(pixels)
    with counter:
        call()
    return counter.operations


def of_block(network: str, side: int, dtype: torch.dtype) -> dict[str, list[Operation]]:
    """Operations of a shifted block of a network, in its authors' form and in ours."""
    spec, config = NETWORKS[network].build_settings(rehearsal=False)
    with torch.device("meta"):
        net = spec.build(config).to(dtype).eval()
        block = [m for m in net.modules() if isinstance(m, AttentionBlock)][1]
        x = torch.empty(1, side, side, block.norm1.normalized_shape[0], dtype=dtype)
    # tensors without data stand for those of a GPU
    as_on_gpu = mock.patch.object(dispatch, "triton_refuses", dispatch.open_sizes)
    with as_on_gpu, only(("triton", "torch")), torch.no_grad():
        stored, tokens = Stored(keep=True), x.flatten(1, 2)
        return {
            "as the authors compute it": counted(
                lambda: run_block(block, tokens, (side, side), stored), side**2
            ),
            "as it is computed here": counted(lambda: block(x), side**2),
        }


LEFT, WIDTH, ROW, BAR = 150, 470, 18, 230  # pixels


def drawn(title: str, columns: dict[str, list[Operation]]) -> str:
    """Both lists as bars, side by side."""
    longest = max(moved for operations in columns.values() for _, moved in operations)
    rows = max(len(operations) for operations in columns.values())
    height = 90 + ROW * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(columns)}" height="{height}" '
        f'viewBox="0 0 {WIDTH * len(columns)} {height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15" fill="#111111">{escape(title)}</text>',
    ]
    for number, (name, operations) in enumerate(columns.items()):
        left = number * WIDTH
        total = sum(moved for _, moved in operations)
        words = f"{name}: {len(operations)} operations, {total:,.0f} bytes a pixel"
        parts.append(
            f'<text x="{left + 12}" y="50" font-weight="bold" fill="#111111">{escape(words)}</text>'
        )
        for row, (label, moved) in enumerate(operations):
            y = 66 + ROW * row
            width = max(BAR * moved / longest, 0.5)
            colour = "#c0504d" if number == 0 else "#3b7d4f"
            parts += [
                f'<text x="{left + LEFT - 8}" y="{y + 11}" text-anchor="end" fill="#333333">'
                f"{escape(label)}</text>",
                f'<rect x="{left + LEFT}" y="{y + 1}" width="{width:.1f}" height="{ROW - 5}" '
                f'fill="{colour}"/>',
                f'<text x="{left + LEFT + width + 5:.1f}" y="{y + 11}" fill="#333333">'
                f"{moved:,.0f}</text>",
            ]
    return "\n".join([*parts, "</svg>", ""])


def picture(network: str, side: int, columns: dict[str, list[Operation]]) -> str:
    """The figure, as SVG."""
    words = (
        f"What a shifted block of {network} reads and writes, bf16, map of {side} x {side} pixels"
    )
    return drawn(words, columns)


def main() -> None:
    """Count, print and draw."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.traffic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = [n for n in NETWORKS if n.startswith("SwinIR")]
    parser.add_argument("--network", choices=known, default="SwinIR-M")
    parser.add_argument("--side", type=int, default=SIDE, help=f"of the map (default {SIDE})")
    parser.add_argument("--out", type=Path, default=PICTURE)
    args = parser.parse_args()
    columns = of_block(args.network, args.side, torch.bfloat16)
    for name, operations in columns.items():
        print(f"{name}: {sum(moved for _, moved in operations):,.0f} bytes a pixel")
        for label, moved in operations:
            print(f"  {moved:10,.1f}  {label}")
    args.out.write_text(picture(args.network, args.side, columns), encoding="utf-8")
    print(f"{args.out} written")


if __name__ == "__main__":
    main()
