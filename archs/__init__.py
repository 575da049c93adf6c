"""Architectures: one file each; `ARCHS` is the only list. Files with an underscore are shared."""

from __future__ import annotations

from restore.archs import atd, cat, cat_unet, drct, hat, hit_sr, srformer, swinir, uformer
from restore.archs._spec import ArchSpec

ARCHS: tuple[ArchSpec, ...] = (
    swinir.SPEC,
    *srformer.SPECS,
    *hit_sr.SPECS,
    hat.SPEC,
    drct.SPEC,
    uformer.SPEC,
    atd.SPEC,
    cat.SPEC,
    cat_unet.SPEC,
)
