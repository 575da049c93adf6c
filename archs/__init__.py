"""Architectures: one file each; `ARCHS` is the only list. Files with an underscore are shared."""

from __future__ import annotations

from restore.archs import hit_sr, swinir
from restore.archs._spec import ArchSpec

ARCHS: tuple[ArchSpec, ...] = (swinir.SPEC, *hit_sr.SPECS)
