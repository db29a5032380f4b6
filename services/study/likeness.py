"""How alike two pictures are: the peak signal-to-noise ratio, and structural similarity (SSIM).

SSIM is that of Z. Wang, A. C. Bovik, H. R. Sheikh and E. P. Simoncelli, Image Quality Assessment: From Error Visibility
to Structural Similarity, IEEE Transactions on Image Processing 13(4), 2004, with its constants, on the brightness.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

SIDE = 11
"""Pixels of SSIM's window, a Gaussian: no side of a picture may be shorter."""
_DEVIATION = 1.5  # of the Gaussian, in pixels
_C1, _C2 = 0.01**2, 0.03**2  # for values from 0 to 1
_BRIGHTNESS = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Decibels for pictures of the same shape with values from 0 to 1; at most 100, if they are equal."""
    return -10 * math.log10(max(float((one - other).square().mean()), 1e-10))


def ssim(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Mean structural similarity of pictures (B, 3, H, W), RGB, 0 to 1: a scalar, 1 if they are equal.

    Has a derivative, so that a network can be trained for it. Both sides are at least SIDE pixels.
    """
    weights = one.new_tensor(_BRIGHTNESS).view(1, 3, 1, 1)
    x, y = ((picture * weights).sum(1, keepdim=True) for picture in (one, other))
    # The window has all of its weight inside the picture: no borders are made up.
    mean_x, mean_y, xx, yy, xy = _windowed(torch.cat([x, y, x * x, y * y, x * y], 1)).unbind(1)
    variance_x, variance_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    alike = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return (alike / ((mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2))).mean()


def _windowed(maps: torch.Tensor) -> torch.Tensor:
    """Gaussian means of each map (B, C, H, W) around every position that is far enough from the borders."""
    distance = torch.arange(SIDE, dtype=maps.dtype, device=maps.device) - SIDE // 2
    window = torch.exp(-(distance**2) / (2 * _DEVIATION**2))
    kernel = (window / window.sum()).expand(maps.shape[1], 1, 1, SIDE)
    across = functional.conv2d(maps, kernel, groups=maps.shape[1])
    return functional.conv2d(across, kernel.transpose(2, 3), groups=maps.shape[1])
