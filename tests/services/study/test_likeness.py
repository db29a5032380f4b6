"""SSIM against the formula written out position by position, and values that are known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from services.study.likeness import psnr, ssim


def _pictures(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    one = rng.random((2, 3, 14, 17), np.float32)
    other = np.clip(one + rng.normal(0, 0.2, one.shape), 0, 1).astype(np.float32)
    return torch.from_numpy(one), torch.from_numpy(other)


def _slow_ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Equations 13 to 16 of Wang et al. 2004 with a window of 11 by 11, for one brightness picture each (H, W)."""
    distance = np.arange(11) - 5
    window = np.exp(-(distance[:, None] ** 2 + distance[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for top in range(one.shape[0] - 10):
        for left in range(one.shape[1] - 10):
            x, y = (picture[top : top + 11, left : left + 11] for picture in (one, other))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            variance_x, variance_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            found.append(
                (2 * mean_x * mean_y + 0.0001)
                * (2 * covariance + 0.0009)
                / ((mean_x**2 + mean_y**2 + 0.0001) * (variance_x + variance_y + 0.0009))
            )
    return float(np.mean(found))


def test_ssim_is_the_formula_on_brightness() -> None:
    one, other = _pictures(0)
    gray = [
        np.tensordot([0.299, 0.587, 0.114], picture.numpy().astype(np.float64), axes=(0, 1))
        for picture in (one, other)
    ]
    expected = np.mean([_slow_ssim(gray[0][number], gray[1][number]) for number in range(2)])
    assert float(ssim(one, other)) == pytest.approx(expected, abs=1e-5)
    assert 0.1 < expected < 0.9


def test_a_picture_is_like_itself_and_not_like_its_negative() -> None:
    one, _ = _pictures(1)
    assert float(ssim(one, one)) == pytest.approx(1, abs=1e-5)
    assert float(ssim(one, 1 - one)) < 0


def test_a_network_can_be_trained_for_ssim() -> None:
    one, other = _pictures(2)
    other.requires_grad_()
    before = ssim(one, other)
    (slope,) = torch.autograd.grad(before, other)
    assert float(ssim(one, other.detach() + 5 * slope)) > float(before.detach())


def test_psnr_is_in_decibels_of_the_whole_range() -> None:
    one = torch.full((1, 3, 4, 4), 0.5)
    assert psnr(one, one + 0.1) == pytest.approx(20, abs=1e-4)
    assert psnr(one, one + 0.01) == pytest.approx(40, abs=1e-3)
    assert psnr(one, one) == 100
    assert math.isfinite(psnr(torch.zeros(1), torch.ones(1)))
