"""A batch of tiles through a model: channel counts, self-ensemble, half precision gone wrong.

Shape letters: B tiles, h and w their rows and columns, s the model's scale, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.errors import ImageError, RestoreError

if TYPE_CHECKING:
    from restore.model import Model
    from restore.padding import Padding
    from restore.upscaling.progress import Tracker

Floats = npt.NDArray[np.float32]

# what PyTorch's allocators and libraries say where they do not raise torch.OutOfMemoryError
_OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",  # cuDNN and cuBLAS
    "invalid buffer size",  # MPS, for one buffer larger than it can make
)

# quarter turns, and whether a mirror follows; the eighth is the tile as it is
_OTHER_SEVEN = [(turns, flip) for turns in range(4) for flip in (False, True)][1:]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or the machine had no room."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _OUT_OF_MEMORY_WORDS)


class Network:
    """A model made to take tiles of 1 (gray) or 3 (RGB) channels, whichever it has itself.

    Gray goes through an RGB model as three equal channels, and the mean of the three outputs is
    the result; RGB goes through a gray model one channel at a time.

    Args:
        model: the model.
        channels: of the tiles, 1 or 3.
        tta: average the outputs for the 8 flips and quarter turns of a tile (Timofte et al.,
            "Seven ways to improve example-based single image super resolution",
            arXiv:1511.02228); 8 times the work.
        tracker: is told of tiles that were computed again in float32.
        padding: see `Model.__call__`.
    """

    def __init__(
        self,
        model: Model,
        channels: int,
        *,
        tta: bool,
        tracker: Tracker,
        padding: Padding = "reflect",
    ) -> None:
        if channels not in (1, 3):
            raise ImageError(f"the picture has {channels} channels; expected 1 (gray) or 3 (RGB)")
        self.model = model
        self.channels = channels
        self.tta = tta
        self.padding = padding
        self._tracker = tracker

    def __call__(self, tiles: Floats, names: Sequence[str]) -> Floats:
        """Run a batch.

        Args:
            tiles: [B, h, w, C] in 0..1.
            names: of the B tiles, for messages.

        Returns:
            [B, h * s, w * s, C], finite, not clamped.

        Raises:
            RestoreError: an output of a wrong shape, or one that is not finite in float32 either.
        """
        with torch.inference_mode():
            # contiguous: convolutions would take the strides for a wish for channels-last
            x = torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous().to(self.model.device)
            y = self._forward(x, None)  # [B, C, h * s, w * s]
            bad = _not_finite(y)
            if bad and self.model.dtype in (torch.float16, torch.bfloat16):
                y[bad] = self._forward(x[bad], torch.float32)
                self._tracker.computed_again(len(bad), self.model.dtype)
                bad = _not_finite(y)
            if bad:
                count = int((~torch.isfinite(y[bad[0]])).sum())
                raise RestoreError(
                    f"{self.model.name}: {count} values that are no numbers (NaN or infinite) in "
                    f"{names[bad[0]]}; the weights do not fit this architecture or are damaged"
                )
            out: Floats = y.permute(0, 2, 3, 1).cpu().numpy()
            return out

    def _forward(self, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        """[B, C, h, w] to [B, C, h * s, w * s], whatever channels the model has."""
        if self.channels == self.model.in_channels:
            return self._ensemble(x, dtype)
        if self.channels == 1:
            return self._ensemble(x.repeat(1, 3, 1, 1), dtype).mean(1, keepdim=True)
        y = self._ensemble(x.flatten(0, 1)[:, None], dtype)  # [B * 3, 1, h * s, w * s]
        return y.reshape(len(x), 3, *y.shape[2:])

    def _ensemble(self, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        if not self.tta:
            return self._run(x, dtype)
        # a copy: a model may hand back its input, which is still needed
        total = self._run(x, dtype).clone()
        for turns, flip in _OTHER_SEVEN:
            seen = x.rot90(turns, (2, 3))
            seen = seen.flip(3) if flip else seen
            y = self._run(seen.contiguous(), dtype)
            total += (y.flip(3) if flip else y).rot90(-turns, (2, 3))
        return total / 8

    def _run(self, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        y = self.model(x, dtype=dtype, padding=self.padding)
        s = self.model.scale
        want = (len(x), x.shape[1], x.shape[2] * s, x.shape[3] * s)
        if tuple(y.shape) != want:
            raise RestoreError(
                f"{self.model.name}: {tuple(x.shape)} became {tuple(y.shape)}; a model of scale "
                f"{s} has to give {want}"
            )
        return y


def _not_finite(y: Tensor) -> list[int]:
    """Which of the B outputs hold a NaN or an infinity."""
    good = torch.isfinite(y).flatten(1).all(1)
    return [i for i, fine in enumerate(good.tolist()) if not fine]
