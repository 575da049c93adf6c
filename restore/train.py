"""`python -m restore.train -opt FILE` is the command `restore train`, as torchrun needs it."""

from __future__ import annotations

import sys

from restore.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
