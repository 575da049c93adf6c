"""docs/training.md has every key with its default."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from restore.training.options import SECTIONS
from restore.training.typed_reading import keys_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_tables_are_current() -> None:
    script = ROOT / "scripts" / "option_tables.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_key_has_a_meaning() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", PAGE, re.MULTILINE))
    told = {"file", "forced", "kind", "key", "phase"}
    for kind in SECTIONS.values():
        for key in set(keys_of(kind)) - told - {"arguments"}:
            assert rows.get(key), key


def test_option_files_that_the_page_names_are_there() -> None:
    for name in re.findall(r"options/(?:train|test)/\w+\.yml", PAGE):
        assert (ROOT / name).is_file(), name
