"""Writing files of torch.save, where a full disk is told as what it is."""

from __future__ import annotations

from typing import Any

import torch


def write_pickle(file: Any, content: object) -> None:
    """Write what torch.load reads.

    Args:
        file: anything with `write` and `flush`, for bytes.
        content: what torch.save takes.

    Raises:
        OSError: of the file.
    """
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # PyTorch tells a failed write as a position that it did not expect
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise
