"""What libraries say on the screen of damaged files: less than our errors, and before them."""

from __future__ import annotations

import logging
import os
import warnings


def silence_decoders() -> None:
    """Silence tifffile, OpenCV and Pillow in this process; to be called before they are loaded."""
    for name in ("tifffile", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    warnings.filterwarnings("ignore", module=r"PIL\.")
