"""Pictures of any size through a model.

`api` is what callers use and `run` one call's choices. `tiling` cuts, `engine` computes tile after
tile, `blend` joins, `rows` collects; `network` runs a batch of tiles, `workers` and `alpha` (with
transparency) make them out of a picture's rows, `memory` knows what fits.
"""

from __future__ import annotations

from restore.image_io.row_files import RowSource
from restore.upscaling.api import (
    BlockSink,
    RowSink,
    TileAgreement,
    restore_floats,
    upscale,
    upscale_picture,
    upscale_rows,
    verify_tiles,
)
from restore.upscaling.progress import Progress, RunReport
from restore.upscaling.run import output_size

__all__ = [
    "BlockSink",
    "Progress",
    "RowSink",
    "RowSource",
    "RunReport",
    "TileAgreement",
    "output_size",
    "restore_floats",
    "upscale",
    "upscale_picture",
    "upscale_rows",
    "verify_tiles",
]
