"""Metrics that need weights or parameters of their authors: LPIPS, DISTS and NIQE.

    lpips = perceptual("lpips", device="cuda")
    distance = lpips(result, truth, crop_border=4)

Nothing is downloaded. A file that is not named is looked for in `experiments/pretrained_models`,
in `checkpoints` of `torch.hub.get_dir()`, and in the package that brings it, if that is installed:

- LPIPS: the package lpips, and of download.pytorch.org/models `alexnet-owt-7be5be79.pth` (in the
  second folder alone, where that package reads it);
- DISTS: of the same `vgg16-397923af.pth`, and of github.com/dingkeyan93/DISTS
  `DISTS_pytorch/weights.pt`, which is looked for as `DISTS_weights*.pth`;
- NIQE: of github.com/XPixelGroup/BasicSR `basicsr/metrics/niqe_pris_params.npz`.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, overload

import numpy as np
import torch
from torch import Tensor, nn

from restore.errors import UsageError
from restore.metrics.niqe import FILE as NIQE_FILE
from restore.metrics.niqe import OFFERED as NIQE_OFFERED
from restore.metrics.niqe import niqe, read_model
from restore.metrics.pairs import AnyArray, Pair, Strips, pair_of
from restore.torchvision_remedies import declare_torchvision_operators

if TYPE_CHECKING:
    from restore.metrics.dists import DISTS

PerceptualName = Literal["lpips", "dists", "niqe"]

# the files of torchvision that the networks of the package lpips begin from
_LPIPS_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
_VGG_FILE = _LPIPS_FILES["vgg"]
_TORCHVISION = "download.pytorch.org/models"


@dataclass(frozen=True)
class Perceptual:
    """A metric ready to use; lower is better in all of them.

    Attributes:
        name: which.
        needs_truth: whether it compares with the true picture.
    """

    name: PerceptualName
    needs_truth: bool
    _measure: Callable[[Pair], Tensor]

    @overload
    def __call__(
        self,
        result: AnyArray,
        truth: AnyArray | None = None,
        *,
        crop_border: int = 0,
        data_range: float | None = None,
    ) -> float: ...
    @overload
    def __call__(
        self,
        result: Tensor,
        truth: Tensor | None = None,
        *,
        crop_border: int = 0,
        data_range: float | None = None,
    ) -> Tensor: ...
    def __call__(
        self,
        result: AnyArray | Tensor,
        truth: AnyArray | Tensor | None = None,
        *,
        crop_border: int = 0,
        data_range: float | None = None,
    ) -> float | Tensor:
        """Measure an image of NumPy or a batch of tensors, as `restore.metrics.psnr` takes them.

        Gray counts as three equal channels.

        Args:
            result: the restored picture.
            truth: the true one; only where `needs_truth`.
            crop_border: pixels left out at each of the four sides.
            data_range: the value of white; 255, 65535 or 1 by dtype if None.

        Returns:
            A number; of tensors one for each, [B] float64 on their device.

        Raises:
            UsageError: as for `psnr`; there is no truth though it is needed, or the picture is too
                small for the metric.
        """
        if truth is None and self.needs_truth:
            raise UsageError(f"{self.name} compares with the true picture; none was given")
        other = truth if self.needs_truth and truth is not None else result
        y_channel = self.name == "niqe"
        pair = pair_of(self.name, result, other, crop_border, y_channel, data_range, "rgb")
        with torch.inference_mode():
            values = self._measure(pair)
        if isinstance(result, Tensor):
            return values.to(result.device, torch.float64).clone()
        return float(values[0])


def perceptual(
    name: PerceptualName,
    *,
    device: torch.device | str = "cpu",
    weights: Path | None = None,
    network: Literal["alex", "vgg", "squeeze"] = "alex",
) -> Perceptual:
    """A metric with its weights.

    Args:
        name: "lpips" (Zhang et al., arXiv:1801.03924), "dists" or "niqe".
        device: where networks compute; NIQE computes on the CPU.
        weights: the file of DISTS' alpha and beta or of NIQE's parameters; None: see the module.
        network: of LPIPS; the tables of super-resolution papers have "alex".

    Raises:
        UsageError: no such metric, or something is not at hand; the message says what to do.
        CheckpointError: a file of weights cannot be read.
    """
    if name not in get_args(PerceptualName):
        raise UsageError(f"metric {name!r}; expected {', '.join(get_args(PerceptualName))}")
    if name == "niqe":
        model = read_model(weights or _niqe_file())
        return Perceptual(name, False, lambda pair: _each(pair, lambda y: niqe(y, model)))
    if name == "dists":
        dists = _dists(weights).to(device)
        return Perceptual(name, True, lambda pair: dists(*_colours(pair, device)))
    lpips = lpips_network(network).to(device)

    def distance(pair: Pair) -> Tensor:
        found: Tensor = lpips(*_colours(pair, device), normalize=True)
        return found.flatten()

    return Perceptual(name, True, distance)


def lpips_network(net: str = "alex") -> nn.Module:
    """The network of the package lpips, frozen; nothing is downloaded.

    Raises:
        UsageError: no such network, or the package or torchvision's weights are not at hand.
    """
    if net not in _LPIPS_FILES:
        raise UsageError(f"LPIPS: net is {net!r}; expected one of {', '.join(_LPIPS_FILES)}")
    path = Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_FILES[net]
    declare_torchvision_operators()
    try:
        import lpips
    except ImportError as error:
        raise UsageError(
            "LPIPS: the package lpips is not installed; pip install 'restore-sr[train]'"
        ) from error
    if not path.exists():
        raise UsageError(
            f"LPIPS: no {path}, the weights of its network; put torchvision's there, from "
            f"{_TORCHVISION}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its call of torchvision is an older one
        network: nn.Module = lpips.LPIPS(net=net, verbose=False)
    return network.eval().requires_grad_(False)


def _dists(weights: Path | None) -> DISTS:
    from restore.metrics.dists import DISTS, FILES, OFFERED

    vgg = _found(_VGG_FILE)
    if vgg is None:
        raise UsageError(_missing("DISTS", _VGG_FILE, f"{_TORCHVISION}/{_VGG_FILE}"))
    brought = _of_package("DISTS_pytorch", FILES[0])
    # only of a package is a name as common as weights.pt enough
    weights = weights or brought or _found(FILES[1])
    if weights is None:
        raise UsageError(_missing("DISTS", FILES[1], f"{OFFERED}, and rename it DISTS_weights.pth"))
    return DISTS(vgg, weights)


def _niqe_file() -> Path:
    path = _found(NIQE_FILE) or _of_package("basicsr", "metrics", NIQE_FILE)
    if path is None:
        raise UsageError(_missing("NIQE", NIQE_FILE, NIQE_OFFERED))
    return path


def _folders() -> list[Path]:
    # BasicSR's and PyTorch's
    return [Path("experiments", "pretrained_models"), Path(torch.hub.get_dir()) / "checkpoints"]


def _found(pattern: str) -> Path | None:
    files = [path for folder in _folders() for path in sorted(folder.glob(pattern))]
    return files[0] if files else None


def _of_package(package: str, *parts: str) -> Path | None:
    """A file of a package that may be installed; it is not imported."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or []:
        path = Path(folder, *parts)
        if path.is_file():
            return path
    return None


def _missing(metric: str, name: str, offered: str) -> str:
    places = " or ".join(map(str, _folders()))
    return f"{metric}: no {name} in {places}; get it from {offered}, or leave out {metric}"


def _colours(pair: Pair, device: torch.device | str) -> list[Tensor]:
    """Both pictures, [B, 3, H, W] float32 in 0..1."""
    planes = Strips(pair, pair.shape[2]).planes(0, pair.shape[2])
    wide = (torch.as_tensor(x).expand(-1, 3, -1, -1) for x in planes)
    return [(x / 255).to(device, torch.float32) for x in wide]


def _each(pair: Pair, measure: Callable[[AnyArray], float]) -> Tensor:
    """The values of the first pictures' only channels, [B] float64."""
    planes, _ = Strips(pair, pair.shape[2]).planes(0, pair.shape[2])
    arrays = np.asarray(torch.as_tensor(planes).cpu())
    return torch.tensor([measure(array[0]) for array in arrays], dtype=torch.float64)
