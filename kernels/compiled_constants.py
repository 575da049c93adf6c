"""Settings that compiled graphs hold as constants.

Marking them so loads PyTorch's compiler, which takes longer than PyTorch itself: this is imported
only where Triton can run the call.
"""

from __future__ import annotations

import torch


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def multiplies_float32_in_full() -> bool:
    """Whether the user lets products of float32 be no less exact, as is PyTorch's default."""
    return torch.get_float32_matmul_precision() == "highest"
