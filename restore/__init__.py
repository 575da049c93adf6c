"""Image restoration transformers: official weights in, faithful pictures out.

    import restore

    model = restore.load("HiT-SRF_x4.pth")
    large = restore.upscale(small, model)

The names below load on first use, so that `restore --help` need not wait for PyTorch. Nothing else
is imported here: Ctrl-C is told in one line only once `__main__` runs.
"""

from __future__ import annotations

TYPE_CHECKING = False  # of the module typing, whose import would take most of this one's time
if TYPE_CHECKING:
    from restore.errors import RestoreError
    from restore.exporting import export
    from restore.loading import load
    from restore.metrics import psnr, ssim
    from restore.model import Model
    from restore.resizing import imresize
    from restore.upscaling import upscale

__version__ = "0.1.0"
__all__ = ["Model", "RestoreError", "export", "imresize", "load", "psnr", "ssim", "upscale"]

_HOME = {
    "Model": "model",
    "RestoreError": "errors",
    "export": "exporting",
    "imresize": "resizing",
    "load": "loading",
    "psnr": "metrics",
    "ssim": "metrics",
    "upscale": "upscaling",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'restore' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"restore.{_HOME[name]}"), name)
    globals()[name] = value
    return value
