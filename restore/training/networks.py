"""Networks that option files describe."""

from __future__ import annotations

import difflib

from restore.archs import ARCHS
from restore.archs._spec import ArchConfig, ArchSpec
from restore.constructors import IGNORED, given_and_default
from restore.errors import UsageError, shown
from restore.training.options import NetworkOptions


def described(options: NetworkOptions) -> tuple[ArchSpec, ArchConfig]:
    """The architecture and settings of `network_g`.

    Arguments left out have the official defaults.

    Raises:
        UsageError: a type or argument that is not known, or a value that no network has.
    """
    known = {spec.name: spec for spec in ARCHS}
    spec = known.get(options.type)
    if spec is None:
        near = difflib.get_close_matches(options.type, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"{options.where('type')}: key 'network_g.type' is {shown(repr(options.type))}; "
            f"{hint}known: {', '.join(known)}"
        )
    default = spec.config()
    values = given_and_default(spec, options.arguments)
    for name, value in values.items():
        if refusal := default.refusal(name, value):
            # a list may have thousands of values; what is expected stands at the end
            told = refusal if len(refusal) < 400 else f"{refusal[:200]} ... {refusal[-200:]}"
            raise UsageError(f"{options.where(name)}: network_g of type {spec.name}: {told}")
    where = f"{options.where()}: network_g of type {spec.name}"
    return spec, default.replaced(values, where, UsageError)


def idle_arguments(options: NetworkOptions) -> list[str]:
    """Arguments of `network_g` that official constructors take and leave alone."""
    return [key for key in options.arguments if key in IGNORED.get(options.type, ())]
