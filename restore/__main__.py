"""`python -m restore`, and the command `restore`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; Ctrl-C while that loads ends it in one line too."""
    try:
        from restore.cli import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
