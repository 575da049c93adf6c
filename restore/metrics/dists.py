"""DISTS: the distance of two pictures in structure and texture. Lower is better, 0 if equal.

Source: Ding, Ma, Wang and Simoncelli, "Image quality assessment: unifying structure and texture
similarity", arXiv:2004.07728. Written anew. VGG16 and the weights of its channels are their
authors' data and not part of this package. Pictures are compared as large as they are; the authors'
script first shrinks those whose shorter side is above 256 pixels to 256.

Shape letters: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.checkpoint import read_checkpoint
from restore.errors import UsageError
from restore.training.vgg import VGGFeatures

FILES = ("weights.pt", "DISTS_weights*.pth")
OFFERED = "github.com/dingkeyan93/DISTS, DISTS_pytorch/weights.pt"

_LAYERS = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512, "relu5_3": 512}
_CHANNELS = 3 + sum(_LAYERS.values())  # of the picture itself and the layers
_TINY = 1e-6  # c1 and c2 of equations 5 and 6


class DISTS(nn.Module):
    """The network and the weights of its channels, frozen.

    Args:
        vgg: torchvision's file of VGG16.
        weights: a file with `alpha` and `beta`, [1, 1475, 1, 1] each: of means and of correlations.

    Raises:
        CheckpointError, UsageError: a file cannot be read or is another one.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self, vgg: Path, weights: Path) -> None:
        super().__init__()
        self.vgg = VGGFeatures(list(_LAYERS), "vgg16", True, False, vgg)
        for part, channels in enumerate(list(_LAYERS.values())[:-1], 1):
            self.vgg.features.add_module(f"pool{part}", _RootMeanSquarePool(channels))
        state = read_checkpoint(weights).state
        parts = []
        for name in ("alpha", "beta"):
            if name not in state or state[name].numel() != _CHANNELS:
                raise UsageError(
                    f"DISTS: {weights} has no {name} of {_CHANNELS} numbers; expected {OFFERED}"
                )
            parts.append(state[name].reshape(-1).double())
        total = parts[0].sum() + parts[1].sum()
        for name, values in zip(("alpha", "beta"), parts, strict=True):
            self.register_buffer(name, values / total, persistent=False)

    def forward(self, result: Tensor, truth: Tensor) -> Tensor:
        """[B, 3, H, W] in 0..1 twice to [B] float64."""
        features = [{"picture": x, **self.vgg(x)} for x in (result, truth)]
        similarity = torch.zeros((), dtype=torch.float64, device=result.device)
        first: int = 0
        for name in features[0]:
            x, y = (each[name].double().flatten(2) for each in features)  # [B, C, H * W]
            last = first + int(x.shape[1])
            mean_x, mean_y = x.mean(2), y.mean(2)
            var_x, var_y = x.var(2, correction=0), y.var(2, correction=0)
            covariance = (x * y).mean(2) - mean_x * mean_y
            texture = (2 * mean_x * mean_y + _TINY) / (mean_x**2 + mean_y**2 + _TINY)
            structure = (2 * covariance + _TINY) / (var_x + var_y + _TINY)
            similarity = similarity + texture @ self.alpha[first:last]
            similarity = similarity + structure @ self.beta[first:last]
            first = last
        return 1 - similarity


class _RootMeanSquarePool(nn.Module):
    """Half the pixels along each side: the root of a weighted mean of squares (equation 3)."""

    window: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        hann = torch.tensor([0.25, 0.5, 0.25])
        window = (hann[:, None] * hann).expand(channels, 1, 3, 3).clone()
        self.register_buffer("window", window, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, ceil(H / 2), ceil(W / 2)]."""
        mean = F.conv2d(x.square(), self.window, stride=2, padding=1, groups=x.shape[1])
        return (mean + 1e-12).sqrt()
