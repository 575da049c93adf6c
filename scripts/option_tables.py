"""Write the tables of option keys at the end of docs/training.md, from the typed sections.

python scripts/option_tables.py            write them
python scripts/option_tables.py --check    exit 1 where they are not what this would write
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from restore.training.option_types import Section  # noqa: E402
from restore.training.option_values import flat_part, hints_of, words  # noqa: E402
from restore.training.options import SECTIONS  # noqa: E402

PAGE = ROOT / "docs" / "training.md"
BEGINNING = "## Every key\n"
# fields that the program fills in
TOLD = {"Options": ("file", "forced", "kind"), "DatasetOptions": ("key", "phase", "scale")}
TITLES = {
    "": "The top level",
    "network_g": "network_g, network_d",
    "train.optim_g": "train.optim_g, optim_d",
    "train.pixel_opt": "train.pixel_opt, fft_opt, ssim_opt, lpips_opt",
    "train.progressive": "train.progressive: a list of stages",
}


def main() -> int:
    """Write or check the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only tell whether they are current")
    only_check = parser.parse_args().check
    found = PAGE.read_text(encoding="utf-8")
    wanted = found[: found.index(BEGINNING)] + tables()
    if found == wanted:
        return 0
    if only_check:
        print(f"{PAGE.relative_to(ROOT)} is out of date; run python scripts/option_tables.py")
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    print(PAGE)
    return 0


def tables() -> str:
    """All that stands from BEGINNING on."""
    parts = [
        BEGINNING,
        "`-` stands for a key that has to be there, `~` for none. Defaults are BasicSR's wherever "
        "it has the key.\n",
    ]
    for name, kind in SECTIONS.items():
        title = TITLES.get(name, name).replace("<key>", "KEY").replace("<name>", "NAME")
        parts.append(f"### {title}\n")
        parts.append("| key | default | value | meaning |\n|-|-|-|-|")
        parts[-1] += "".join(f"\n{row}" for row in rows(kind)) + "\n"
    return "\n".join(parts)


def rows(kind: type[Section]) -> list[str]:
    """One line of the table for every key of a section."""
    meanings = meanings_of(kind)
    made = []
    for field in dataclasses.fields(kind):
        name, hint = field.name, hints_of(kind).get(field.name)
        if hint is None or name in TOLD.get(kind.__name__, ()):
            continue
        part = flat_part(hint)
        if part is not None:
            made += rows(part)
            continue
        meaning = meanings.get(name)
        if meaning is None and name.endswith("2"):
            meaning = f"{name[:-1]} of the second round"
        if meaning is None:
            meaning = "as for the network" if name.endswith("_d") else ""
        key = "(all others)" if name == "arguments" else f"`{name}`"
        made.append(f"| {key} | {default_of(field)} | {words(hint)} | {meaning} |")
    return made


def default_of(field: dataclasses.Field[Any]) -> str:
    """A field's default as YAML writes it."""
    if field.default is dataclasses.MISSING:
        return "-" if field.default_factory is dataclasses.MISSING else "`{}`"
    return f"`{as_yaml(field.default)}`" if not isinstance(field.default, Section) else "see below"


def as_yaml(value: Any) -> str:
    """A value in one line of YAML."""
    if value is None:
        return "~"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def meanings_of(kind: type[Section]) -> Mapping[str, str]:
    """What the docstring says of each attribute."""
    text = inspect.getdoc(kind) or ""
    _, _, attributes = text.partition("Attributes:\n")
    lines = re.sub(r"\n {8,}", " ", attributes).splitlines()
    pairs = (line.strip().partition(": ") for line in lines if line.strip())
    return {name: meaning for name, _, meaning in pairs}


if __name__ == "__main__":
    sys.exit(main())
