"""Pictures of any size through a model.

`api` is what callers use and `run` one call's choices. `tiling` cuts, `engine` computes band after
band, `blend` joins; `network` runs one batch of tiles, `alpha` is transparency, `memory` what fits.
"""

from __future__ import annotations

from restore.upscaling.api import (
    RowSink,
    TileAgreement,
    restore_floats,
    upscale,
    upscale_picture,
    upscale_rows,
    verify_tiles,
)
from restore.upscaling.engine import RowSource
from restore.upscaling.progress import Progress, RunReport
from restore.upscaling.run import output_size

__all__ = [
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
