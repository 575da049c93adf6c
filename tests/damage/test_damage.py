"""Thousands of damaged files: each is read as what it is, or refused in words that help.

No crash, no hang, no memory without end, nothing run, nothing printed past the message. A case that
fails names the command that repeats it.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from damage_cases import SHARE, case, names
from damage_runs import report, run_all
from damage_seeds import KINDS, seeds

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="workers are watched by POSIX calls"
)

ALL, SAMPLE, SEED = 3000, 200, 0
REFUSED = 0.3  # of each kind at least: damage that nobody notices would be none


def check(wanted: list[str], folder: Path) -> Counter[tuple[str, str]]:
    answers = run_all(wanted, folder)
    failed = [report(answer) for answer in answers if answer["problem"]]
    assert not failed, f"{len(failed)} of {len(answers)} failed:\n" + "\n".join(failed[:10])
    return Counter((answer["name"].split("/")[0], answer["outcome"]) for answer in answers)


@pytest.mark.timeout(600)
def test_some_damaged_files_of_every_kind(tmp_path: Path) -> None:
    outcomes = check(names(SAMPLE, SEED), tmp_path)
    assert outcomes.total() == SAMPLE
    assert {kind for kind, _ in outcomes} == set(KINDS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_thousand_damaged_files(tmp_path: Path) -> None:
    outcomes = check(names(ALL, SEED), tmp_path)
    for kind, share in SHARE.items():
        assert outcomes[kind, "refused"] > REFUSED * share * ALL / 100
        assert outcomes[kind, "value"] > 0


def test_a_number_is_always_the_same_file() -> None:
    for name in names(100, SEED):
        assert case(name) == case(name)


def test_the_damage_is_spread_over_all_that_is_whole() -> None:
    many = [case(name).recipe.partition(":")[0] for name in names(600, SEED) if name[:4] == "tiff"]
    assert set(many) == set(seeds("tiff"))
