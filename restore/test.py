"""`python -m restore.test -opt FILE` is the command `restore test`."""

from __future__ import annotations

import sys

from restore.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["test", *sys.argv[1:]]))
