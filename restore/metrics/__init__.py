"""How near a restored picture is to the true one, as papers count it: the home of all metrics.

`psnr`, `ssim` and `psnr_b` take NumPy images or batches of PyTorch tensors, on whatever device
these lie, and are one definition for both; `ssim_volume` and `ssim_uniform` are SSIM as tables of
real noise and of blur count it, of NumPy images. LPIPS, DISTS and NIQE, which need weights or
parameters of their authors, are in `restore.metrics.perceptual`, which imports PyTorch.

A published number has five conventions in it, and each is an argument or stated here: the border
that is cut off (`crop_border`, usually the scale), the channel (`y_channel`), the rounding (compare
uint8 images: a result is rounded before it is counted), gray images (`gray`) and, for PSNR-B, how
blocks are counted.
"""

from restore.metrics.fidelity import psnr, psnr_b, ssim
from restore.metrics.other_similarities import ssim_uniform, ssim_volume
from restore.metrics.pairs import Gray, mod_crop, rgb_to_y

__all__ = ["Gray", "mod_crop", "psnr", "psnr_b", "rgb_to_y", "ssim", "ssim_uniform", "ssim_volume"]
