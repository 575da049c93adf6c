"""Networks that option files describe."""

from __future__ import annotations

import difflib

from restore.archs import ARCHS
from restore.archs._spec import ArchConfig, ArchSpec
from restore.constructors import official_config
from restore.errors import UsageError
from restore.training.options import NetworkOptions


def described(options: NetworkOptions) -> tuple[ArchSpec, ArchConfig]:
    """The architecture and settings of `network_g`; UsageError where there are none such."""
    by_name = {spec.name: spec for spec in ARCHS}
    if options.type not in by_name:
        near = difflib.get_close_matches(options.type, by_name, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"{options.where('type')}: network_g type is {options.type!r}; {hint}"
            f"known: {', '.join(by_name)}"
        )
    spec = by_name[options.type]
    where = f"{options.where()}: network_g of type {spec.name}"
    return spec, official_config(spec, options.arguments, where)
