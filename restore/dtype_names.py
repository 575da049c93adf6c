"""Names of number formats, as users write them. Nothing here loads PyTorch."""

from __future__ import annotations

# PyTorch's own names, to those that messages use
TORCH_NAMES = {
    "float32": "fp32",
    "float": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float64": "fp64",
    "double": "fp64",
}
