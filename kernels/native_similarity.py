"""The native path of SSIM, in float64; the definition is `restore.metrics.similarity`'s."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from restore.kernels.native_calls import Similarity
from restore.kernels.native_library import library

FloatArray = npt.NDArray[np.float64]

_TAPS, _MEANS = 11, 4  # of native/similarity.h


class SimilaritySum:
    """SSIM added up over the places of the window in two planes.

    Args:
        columns: of the planes.
        window: [11] weights along an axis, adding up to 1.
        c1: twice the formula's constant for means.
        c2: twice that for variances.

    Raises:
        LookupError: there is no native library.
    """

    def __init__(self, columns: int, window: FloatArray, c1: float, c2: float) -> None:
        self._library = library()
        self._window = np.ascontiguousarray(window)
        self._scratch = np.empty(((_TAPS + 1) * _MEANS, columns))
        self._constants = c1, c2

    def __call__(self, x: FloatArray, y: FloatArray) -> float:
        """[rows, columns] twice, with at least 11 rows and columns, to the sum."""
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        return self._library.similarity(
            Similarity(
                *(array.ctypes.data for array in (x, y, self._window, self._scratch)),
                *x.shape,
                *self._constants,
            )
        )
