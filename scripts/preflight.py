"""Say what this machine lacks for `make`, before anything is downloaded.

Usage: preflight.py FOLDER [TORCH_INDEX]

This file must run on Python 3.6, whose users are the ones who need its message.
"""

import os
import platform
import shutil
import sys
import tempfile

OLDEST = (3, 10)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
GIB = 2**30
CPU_NEEDS = 2 * GIB  # torch for the CPU, its companions and pip's working space
CUDA_NEEDS = 10 * GIB  # the same with NVIDIA's libraries
TEMP_NEEDS = 1 * GIB


def python_fault() -> "str | None":
    """Why this Python cannot be used, or None."""
    if sys.version_info[:2] < OLDEST:
        newer = [f"python3.{minor}" for minor in range(13, 9, -1)]
        found = next((name for name in newer if shutil.which(name)), None)
        remedy = (
            f"run `make PYTHON={found} ...`, which is on this machine"
            if found
            else "install a newer one (python.org, apt, brew or uv), "
            "then run `make PYTHON=/path/to/it ...`"
        )
        here = platform.python_version()
        return f"{sys.executable} is Python {here}; this needs 3.10 or newer: {remedy}"
    return None


def venv_fault() -> "str | None":
    """Why this Python cannot make a virtual environment, or None."""
    try:
        import ensurepip
        import venv
    except ImportError as missing:
        minor = sys.version_info[1]
        return (
            f"{sys.executable} has no module '{missing.name}', so it cannot make .venv: "
            f"on Debian or Ubuntu run `sudo apt install python3-venv` (or python3.{minor}-venv)"
        )
    del ensurepip, venv
    return None


def disk_fault(folder: str) -> "str | None":
    """Why the disk is too full for even the smallest installation, or None."""
    for place, needs in ((folder, CPU_NEEDS), (tempfile.gettempdir(), TEMP_NEEDS)):
        free = shutil.disk_usage(place).free
        if free < needs:
            return (
                f"{place} has {free / GIB:.1f} GiB free; the installation needs "
                f"{needs // GIB} GiB there: free some, or clone to another disk (for pip's "
                "temporary files set TMPDIR)"
            )
    return None


def disk_warning(folder: str, torch_index: str) -> "str | None":
    """What to say where PyTorch's CUDA build may not fit, or None."""
    takes_cuda = platform.system() == "Linux" and not torch_index.rstrip("/").endswith("/cpu")
    free = shutil.disk_usage(folder).free
    if takes_cuda and free < CUDA_NEEDS:
        return (
            f"{folder} has {free / GIB:.1f} GiB free; PyTorch's CUDA build may need "
            f"{CUDA_NEEDS // GIB}. `make TORCH_INDEX={CPU_INDEX} ...` takes {CPU_NEEDS // GIB}"
        )
    return None


def main() -> int:
    """Print what is wrong; 1 if the installation cannot work."""
    folder = os.path.abspath(sys.argv[1])
    torch_index = sys.argv[2] if len(sys.argv) > 2 else ""
    fault = python_fault() or venv_fault() or disk_fault(folder)
    if fault:
        print(f"preflight: {fault}", file=sys.stderr)
        return 1
    warning = disk_warning(folder, torch_index)
    if warning:
        print(f"preflight: warning: {warning}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
