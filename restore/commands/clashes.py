"""Whether the results of many pictures would take each other's place, or a picture's."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batching.names import Names, RealPaths, digest, key, repeated
from restore.batching.result_names import within
from restore.errors import UsageError

if TYPE_CHECKING:
    from restore.commands.files import Job, Naming, Source


def refuse_clashes(
    sources: Sequence[Source], named: Callable[[Source], Job], naming: Naming, folder: Path
) -> Names:
    """Check that each result has a name of its own, which is no picture's that was given.

    Args:
        sources: all pictures.
        named: names a picture's results without reading it.
        naming: for what to do instead.
        folder: of the results.

    Returns:
        The names that are taken, of all results and all pictures, as `ResultNames` wants them.

    Raises:
        UsageError: two pictures would give one file, or a result would replace a picture.
    """
    real, top, real_top = RealPaths(), key(folder), os.path.realpath(folder)
    inputs, outputs, real_outputs, taken = (array("Q") for _ in range(4))
    for source in sources:
        path = real(source.path)
        inputs.append(digest(path))
        # a picture elsewhere is in no result's way
        for name, above in ((path, real_top), (key(source.path), top)):
            if name.startswith(above):
                taken.append(digest(within(above, name)))
        for result in named(source).outputs:
            name = key(result)
            outputs.append(digest(name))
            real_outputs.append(digest(real(result)))
            taken.append(digest(within(top, name)))
    over, twice = Names(inputs) & Names(real_outputs), repeated(outputs)
    if len(over) or len(twice):
        # digests of two names may be equal by chance, so these few are compared as they are
        suspects = {}
        for source in sources:
            job = named(source)
            as_results = any(
                twice.has(digest(key(path))) or over.has(digest(real(path))) for path in job.outputs
            )
            if as_results or over.has(digest(real(source.path))):
                suspects[key(source.path)] = job
        _refuse(suspects, naming)
    return Names(taken)


def _refuse(jobs: dict[str, Job], naming: Naming) -> None:
    inputs = {os.path.realpath(job.source): job.source for job in jobs.values()}
    makers: dict[str, Path] = {}
    for job in jobs.values():
        for path in job.outputs:
            over = inputs.get(os.path.realpath(path))
            if over is not None:
                raise UsageError(
                    f"{over}: would be replaced by the result of {job.source}; add --suffix _x4, "
                    "or choose another folder with -o"
                )
            if job.target == job.compare:
                raise UsageError(
                    f"{path}: would be both the result of {job.source} and its comparison; "
                    "choose another --suffix"
                )
            other = makers.setdefault(key(path), job.source)
            if other != job.source:
                raise UsageError(
                    f"{other} and {job.source} would both be written to {path}; "
                    + _remedy(other, job.source, naming)
                )


def _remedy(one: Path, other: Path, naming: Naming) -> str:
    if one.parent != other.parent:
        return (
            "give their common folder with -r, which keeps its tree, or restore them in two runs "
            "with different -o"
        )
    if naming.ext != "auto" and one.suffix != other.suffix:
        return f"leave out --ext {naming.ext}: auto keeps {one.suffix} and {other.suffix} apart"
    return "rename one of them, or restore them in two runs with different -o"
