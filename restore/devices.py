"""Names of devices and of number formats, as users write them."""

from __future__ import annotations

import torch

from restore.dtype_names import TORCH_NAMES
from restore.errors import UsageError

DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
}


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1" or "mps" into a device that is there.

    "auto" takes the first NVIDIA GPU, else Apple's, else the CPU.

    Raises:
        UsageError: no such device here; the message lists what there is.
    """
    if str(device) == "auto":
        return torch.device(available()[0])
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    name = "" if found is None else str(found)
    if found is None or (name if found.index is not None else found.type) not in _known():
        raise UsageError(
            f"device {str(device)!r} is not here; there is {', '.join(available())} (or auto)"
        )
    return found


def available() -> list[str]:
    """Devices of this machine, the one that "auto" takes first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def _known() -> set[str]:
    here = available()
    return {*here, *(name.split(":")[0] for name in here), "cpu:0"}


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Turn "auto", "fp32", "fp16", "bf16" or "fp64" into the dtype of the arithmetic.

    PyTorch's names and dtypes are taken too: "float16", "half", "torch.float16", torch.float16.
    "auto" is float32 everywhere: half precision is taken only when asked for.

    Raises:
        UsageError: the name is unknown.
    """
    if isinstance(dtype, (str, torch.dtype)):
        name = str(dtype).removeprefix("torch.")
        if name == "auto":
            return torch.float32
        if found := DTYPES.get(TORCH_NAMES.get(name, name)):
            return found
    raise UsageError(
        f"dtype is {dtype!r}; expected auto, one of {', '.join(DTYPES)}, or PyTorch's names for "
        f"them: {', '.join(TORCH_NAMES)}"
    )


def dtype_name(dtype: torch.dtype) -> str:
    """The short name: "fp32" for torch.float32."""
    return {value: name for name, value in DTYPES.items()}.get(dtype, str(dtype))
