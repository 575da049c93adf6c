"""Two models on the same pictures: is one better, by how much, and how sure is that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from restore.bench.protocols import Figure
from restore.bench.results import PictureScore, Row, mean, standard_error
from restore.errors import UsageError

CONFIDENCE = 0.95
_STEPS = 400  # of an integral, even; Simpson's rule then gives quantiles to 8 digits


@dataclass(frozen=True)
class Paired:
    """Differences B - A over the pictures of a set.

    Attributes:
        models: names of A and B.
        dataset, level: of both rows.
        figure: what is compared.
        a, b: means.
        count: pictures that both have, with values; all count in the sign test.
        infinite: those of them without a finite difference, which means and interval leave out.
        difference: the mean of B - A; NaN without a finite one.
        low, high: Student's interval of 95 % around it; NaN below two pictures.
        b_better, a_better: pictures on which either is; on the others they are equal.
        sign_p: of the two-sided sign test: how probable so uneven a count is, or a more uneven
            one, where neither is better.
    """

    models: tuple[str, str]
    dataset: str
    level: str
    figure: Figure
    a: float
    b: float
    count: int
    infinite: int
    difference: float
    low: float
    high: float
    b_better: int
    a_better: int
    sign_p: float


@dataclass(frozen=True)
class Both:
    """A picture as both models restored it."""

    a: PictureScore
    b: PictureScore


def matched(a: Sequence[Row], b: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of the same set at the same level.

    Raises:
        UsageError: there is none, or two were made under different settings.
    """
    found = []
    for first in a:
        for second in b:
            if (first.dataset, first.protocol.level_name) != (
                second.dataset,
                second.protocol.level_name,
            ):
                continue
            _refuse_different(first, second)
            found.append((first, second))
    if not found:
        raise UsageError(f"nothing to compare: A has {_listed(a)}, B has {_listed(b)}")
    return found


def pictures_of_both(a: Row, b: Row) -> list[Both]:
    """The pictures that are scored in both rows, in A's order.

    Raises:
        UsageError: there is none, or one name stands for two pictures.
    """
    others = {picture.name: picture for picture in b.pictures}
    found = [Both(one, others[one.name]) for one in a.pictures if one.name in others]
    for each in found:
        if each.a.truth_digest != each.b.truth_digest:
            raise UsageError(
                f"{a.dataset}: {each.a.truth} and {each.b.truth} are different pictures; score "
                "both models on the same files"
            )
        if each.a.low_digest != each.b.low_digest:
            raise UsageError(
                f"{a.dataset}: the low-quality sides of {each.a.name} are different files, or one "
                "was made; score both models on the same files"
            )
    if not found:
        raise UsageError(f"{a.dataset} {a.protocol.level_name}: no picture is scored by both")
    return found


def made_otherwise(a: Row, b: Row) -> list[str]:
    """What of computing differs between two rows, one sentence for each; it hardly moves scores."""
    kinds = {
        "key of the weights": (a.model.param_key, b.model.param_key),
        "arithmetic": (a.model.dtype, b.model.dtype),
        "device": (a.model.device, b.model.device),
        **{name: (a.settings.get(name), b.settings.get(name)) for name in ("threads", "versions")},
    }
    return [
        f"{a.dataset} {a.protocol.level_name}: {name} of A: {_words(one)}, of B: {_words(other)}"
        for name, (one, other) in kinds.items()
        if one != other
    ]


def _words(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {each}" for name, each in value.items())
    return "not told" if value is None else str(value) or "none"


def paired(a: Row, b: Row) -> list[Paired]:
    """Every figure that both rows have."""
    both = pictures_of_both(a, b)
    shared = [figure for figure in a.protocol.figures if figure in b.protocol.figures]
    return [_paired(a, b, figure, both) for figure in shared]


def _paired(row: Row, other: Row, figure: Figure, both: Sequence[Both]) -> Paired:
    pairs = [(each.a.values[figure.key], each.b.values[figure.key]) for each in both]
    pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
    finite = [pair for pair in pairs if all(map(math.isfinite, pair))]
    differences = [second - first for first, second in finite]
    sign = 1 if figure.higher_is_better else -1
    better = sum(sign * second > sign * first for first, second in pairs)
    worse = sum(sign * second < sign * first for first, second in pairs)
    middle, half = mean(differences), math.nan
    if len(differences) > 1:
        half = student_quantile(len(differences) - 1) * standard_error(differences)
    return Paired(
        models=(row.model.name, other.model.name),
        dataset=row.dataset,
        level=row.protocol.level_name,
        figure=figure,
        a=mean(first for first, _ in finite),
        b=mean(second for _, second in finite),
        count=len(pairs),
        infinite=len(pairs) - len(finite),
        difference=middle,
        low=middle - half,
        high=middle + half,
        b_better=better,
        a_better=worse,
        sign_p=sign_test(better, worse),
    )


def sign_test(better: int, worse: int) -> float:
    """How probable counts at least as uneven, either way, are of fair coins."""
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(max(better, worse), n + 1))
    return min(1.0, 2 * tail / (1 << n))  # whole numbers: floats end at 1e308


def student_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The t that a Student variable stays within, either side of 0, with this probability."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if _within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """How probable |T| <= t is: with T = sqrt(n) tan(u) the density is that of cos(u)^(n - 1)."""
    angle = math.atan(t / math.sqrt(freedom))
    step = angle / _STEPS
    heights = [math.cos(k * step) ** (freedom - 1) for k in range(_STEPS + 1)]
    ends, odd, even = heights[0] + heights[-1], math.fsum(heights[1::2]), heights[2:-1:2]
    area = step / 3 * (ends + 4 * odd + 2 * math.fsum(even))
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    return 2 * area * math.exp(log_scale) / math.sqrt(math.pi)


def _refuse_different(a: Row, b: Row) -> None:
    """Compare what may not differ between two rows: all but the models."""
    if a.protocol != b.protocol:
        raise UsageError(
            f"{a.dataset} {a.protocol.level_name}: the protocols differ: A: {a.protocol.words()}; "
            f"B: {b.protocol.words()}; score both in the same way"
        )
    different = [
        f"{name} is {a.settings.get(name)!r} in A and {b.settings.get(name)!r} in B"
        for name in sorted({*a.settings, *b.settings} - {"threads", "versions"})
        if a.settings.get(name) != b.settings.get(name)
    ]
    if different:
        raise UsageError(
            f"{a.dataset} {a.protocol.level_name}: the settings differ: {'; '.join(different)}; "
            "score both in the same way"
        )


def _listed(rows: Sequence[Row]) -> str:
    names = dict.fromkeys(f"{row.dataset} {row.protocol.level_name}" for row in rows)
    return ", ".join(names) or "nothing"
