"""What kind of value a caller gave: numbers of Python and of NumPy, which are no bool."""

from __future__ import annotations

import math
from typing import TypeGuard

import numpy as np


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number by its type; 2.0 and True are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_finite_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number, neither infinite nor NaN; True is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    return bool(abs(value) < math.inf)
