"""Run the command line from a checkout, without installing: `python inference.py upscale ...`."""

from __future__ import annotations

from restore.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
