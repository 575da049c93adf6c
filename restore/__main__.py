"""`python -m restore` is the command `restore`."""

from __future__ import annotations

from restore.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
